"""Small networks, each with one thing that an engine for pruning can get wrong."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """An addition ties the stem to the block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x += self.outer(torch.sigmoid(self.inner(x)))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenation, then a flatten of channels with pixels."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(9, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(13)
        self.head = nn.Linear(13 * 16, 5)

    def forward(self, x):
        x = torch.cat([x, self.a(x)], 1)
        x = torch.cat([x, self.b(x)], dim=1)
        return self.head(torch.flatten(F.relu(self.norm(x)), 1))


class Grouped(nn.Module):
    """Depthwise with a multiplier, many small groups, few large groups, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.small = nn.Conv2d(24, 16, 3, padding=1, groups=8)
        self.large = nn.Conv2d(16, 8, 3, padding=1, groups=2)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.small(F.hardswish(self.depthwise(self.a(x)))))
        x = self.large(x)
        x = x * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(F.max_pool2d(x, 4).flatten(1))


class Shuffle(nn.Module):
    """Channel shuffle, chunk, transposed convolution and pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.head = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        x = F.relu(self.a(x))
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        left, right = x.view(batch, channels, height, width).chunk(2, 1)
        x = torch.cat([left, self.b(right)], 1)
        return self.head(F.pixel_shuffle(F.relu(self.up(x)), 2)).mean((2, 3))


class OptionA(nn.Module):
    """A strided, zero-padded shortcut with one attribute for both sides."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.block = _OptionABlock(8, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.block(F.relu(self.stem(x))).mean((2, 3)))


class _OptionABlock(nn.Module):
    def __init__(self, taken, made):
        super().__init__()
        self.conv = nn.Conv2d(taken, made, 3, stride=2, padding=1)
        self.pad_channels = (made - taken) // 2

    def forward(self, x):
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad_channels, self.pad_channels))
        return F.relu(self.conv(x) + shortcut)


class TwoPads(OptionA):
    """The same with an attribute for each side."""

    def __init__(self):
        super().__init__()
        self.block = _TwoPadsBlock(8, 16)


class _TwoPadsBlock(nn.Module):
    def __init__(self, taken, made):
        super().__init__()
        self.conv = nn.Conv2d(taken, made, 3, stride=2, padding=1)
        self.low = self.high = (made - taken) // 2

    def forward(self, x):
        return F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.low, self.high)))


class ClosedOptionA(OptionA):
    """The same with a number that no attribute holds, so that the pad cannot follow."""

    def __init__(self):
        super().__init__()
        self.block = _ClosedBlock(8, 16)


class _ClosedBlock(nn.Module):
    def __init__(self, taken, made):
        super().__init__()
        self.conv = nn.Conv2d(taken, made, 3, stride=2, padding=1)
        amount = (made - taken) // 2
        self.shortcut = _Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, amount, amount)))

    def forward(self, x):
        return F.relu(self.conv(x) + self.shortcut(x))


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Attention(nn.Module):
    """A user's own attention: packed projection, heads and head size as attributes, a bias table by head."""

    def __init__(self, heads=4, dim=6, features=12):
        super().__init__()
        self.heads, self.dim, self.width = heads, dim, features
        self.embed = nn.Conv2d(3, features, 2, stride=2)
        self.position = nn.Parameter(torch.randn(1, 4, features))
        self.norm = nn.LayerNorm(features)
        self.packed = nn.Linear(features, 3 * heads * dim)
        self.table = nn.Parameter(torch.randn(4 * 4, heads))
        self.out = nn.Linear(heads * dim, features)
        self.head = nn.Linear(features, 5)

    def forward(self, x):
        batch = x.shape[0]
        x = self.embed(x).reshape(batch, self.width, 4).permute(0, 2, 1) + self.position
        packed = self.packed(self.norm(x)).reshape(batch, 4, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        q, k, v = packed[0], packed[1], packed[2]
        bias = self.table.view(4, 4, self.heads).permute(2, 0, 1).unsqueeze(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.dim**-0.5 + bias, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, 4, self.heads * self.dim)
        x = x + self.out(mixed)
        return self.head(x[:, 0])


class Packed(nn.Module):
    """torch's own attention, between layers of features that can go."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.embed(x.flatten(2))
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x.sum(1))


class Norms(nn.Module):
    """Group normalization, a learned activation, a scale by channel, split and slices by attribute."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 1)
        self.group = nn.GroupNorm(8, 16)
        self.slope = nn.PReLU(16)
        self.gamma = nn.Parameter(torch.randn(16, 1, 1))
        self.half = 6
        self.b = nn.Conv2d(self.half, 4, 1)
        self.c = nn.Conv2d(16 - self.half, 4, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.slope(self.group(self.a(x))) * self.gamma
        x = torch.cat([self.b(x[:, : self.half]), self.c(x[:, self.half :])], 1)
        return self.head(x.amax((2, 3)))


class Tied(nn.Module):
    """One module called twice, one parameter under two names, and an embedding by einsum."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Linear(8, 10, bias=False)
        self.second = nn.Linear(8, 10, bias=False)
        self.second.weight = self.first.weight
        self.mix = nn.Parameter(torch.randn(10, 5))

    def forward(self, x):
        x = F.relu(self.twice(F.relu(self.twice(self.a(x))))).mean((2, 3))
        return torch.einsum("nc,cd->nd", self.first(x) * self.second(x), self.mix)


class Auxiliary(nn.Module):
    """A head that only training uses."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 1)
        self.side = nn.Linear(8, 5)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        y = self.head(self.b(x).mean((2, 3)))
        return (y, self.side(x.mean((2, 3)))) if self.training else y


class Whole(nn.Module):
    """Softmax and mean over channels need all of them; a spare layer that nobody calls."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 6, 1)
        self.c = nn.Conv2d(6, 4, 1)
        self.spare = nn.Linear(7, 9)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.b(torch.softmax(self.a(x), 1))
        return self.head((F.relu(self.c(x)) * x.mean(1, keepdim=True)).mean((2, 3)))


class Odd(nn.Module):
    """An operator without a rule."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.local_response_norm(self.a(x), 3)
        return self.head(torch.cummax(F.relu(self.b(x)).mean((2, 3)), 1).values)


class Recurrent(nn.Module):
    """Two ways, two layers, then a GRU: gates share the hidden units."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 12)
        self.lstm = nn.LSTM(12, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 7, bias=False)
        self.head = nn.Linear(7, 5)

    def forward(self, x):
        x = self.lstm(torch.tanh(self.embed(x.flatten(2))))[0]
        return self.head(self.gru(x.transpose(0, 1))[0][-1])


class Cells(nn.Module):
    """Recurrence by hand: a state of zeros, whose size an attribute holds."""

    def __init__(self):
        super().__init__()
        self.size = 9
        self.cell = nn.LSTMCell(16, 9)
        self.second = nn.GRUCell(9, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = x.flatten(2)
        h, c = x.new_zeros(x.shape[0], self.size), x.new_zeros(x.shape[0], self.size)
        state = None
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
            state = self.second(h, state)
        return self.head(state)


class Windowed(nn.Module):
    """Attention that reads the channels off its input: heads go only with as many channels of the stream."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 1)
        self.norm = nn.LayerNorm(12)
        self.attention = _InputSized(12, 4)
        self.wide = nn.Linear(12, 20)
        self.narrow = nn.Linear(20, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norm(x))
        x = x + self.narrow(F.gelu(self.wide(x)))
        return self.head(x.mean(1))


class _InputSized(nn.Module):
    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.packed = nn.Linear(features, 3 * features)
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))
        self.out = nn.Linear(features, features)

    def forward(self, x):
        batch, length, features = x.shape
        packed = self.packed(x).reshape(batch, length, 3, self.heads, features // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (features // self.heads) ** -0.5 + self.bias
        x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, features)
        return self.out(x)


class Lender(nn.Module):
    """A number that an inner module holds decides how the outer one splits."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 14, 1)
        self.inner = _Keeper(6)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x).mean((2, 3))
        state, context = torch.split(x, [self.inner.size, x.shape[1] - self.inner.size], dim=1)
        return self.head(context) * self.inner(state)


class _Keeper(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.layer = nn.Linear(size, 5)

    def forward(self, x):
        return self.layer(x)


class Detector(nn.Module):
    """What is computed depends on the values, so that only parts can be captured."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1))
        self.tower = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 5))
        self.shared = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 5))

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        found = self.tower(x[x[:, 0] > -1e9])
        if found.sum() > -1e9:
            found = found * self.shared[0](found).mean()
        return self.shared(found)


class SharedHeads(nn.Module):
    """Several heads of queries share one of keys and values."""

    def __init__(self, shared=2):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 24), nn.Linear(16, 4 * shared), nn.Linear(16, 4 * shared)
        self.out = nn.Linear(24, 5)

    def forward(self, x):
        x = x.flatten(2)
        q, k, v = (layer(x).unflatten(2, (-1, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Sorted(nn.Module):
    """An operation with two results, along pixels."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        values, _ = self.a(x).flatten(2).sort(dim=2)
        return self.head(values[..., -3:].mean(2))


class Transposed(nn.Module):
    """The outputs of a transposed convolution are in dimension 1 of its weight."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 2)
        self.back = nn.ConvTranspose2d(8, 4, 2)

    def forward(self, x):
        return self.back(F.relu(self.up(x)))


ALL = (
    Residual,
    Dense,
    Grouped,
    Shuffle,
    OptionA,
    TwoPads,
    ClosedOptionA,
    Attention,
    Packed,
    Norms,
    Tied,
    Auxiliary,
    Whole,
    Odd,
    Recurrent,
    Cells,
    Windowed,
    Lender,
    Detector,
    SharedHeads,
    Sorted,
    Transposed,
)
