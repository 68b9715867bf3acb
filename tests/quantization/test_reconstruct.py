import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.quantization.reconstruct import layer_moments, patches, reconstruct
from adaptkit.quantization.weights import rows_in_runtime_order
from tests.quantization.nets import Residual, exported, quantize, run, settled

aten = torch.ops.aten


@pytest.fixture(scope="module")
def x():
    return torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Call:
    """What `patches` reads of a node of the graph."""

    def __init__(self, target, *settings):
        self.target, self.args = target, (None, None, None, *settings)


@pytest.mark.parametrize(
    ("shape", "weight", "settings"),
    [
        ((2, 4, 9, 7), (6, 4, 3, 3), ([2, 1], [1, 0], [1, 2], 1)),
        ((2, 4, 9, 7), (6, 2, 3, 1), ([1, 1], [1, 1], [1, 1], 2)),
        ((2, 4, 9, 7), (4, 1, 3, 3), ([1], [2], [2], 4)),
        ((2, 4, 9), (6, 4, 3), ([2], [1], [2], 1)),
        ((2, 4, 9, 7), (6, 4, 5, 3), ([1, 1], "same", [1, 2], 1)),
        ((2, 4, 9, 7), (6, 4, 3, 3), ([1, 1], "valid", [2, 1], 1)),
        ((2, 5, 4), (3, 4), ()),
    ],
)
def test_patches_times_weights_are_the_layer(shape, weight, settings):
    x, weight = torch.randn(shape), torch.randn(weight)
    if not settings:
        target, expected = aten.linear.default, F.linear(x, weight)
    else:
        convolution = F.conv1d if x.dim() == 3 else F.conv2d
        stride, padding, dilation, groups = settings
        expected = convolution(x, weight, None, stride, padding, dilation, groups)
        target = aten.conv1d.default if x.dim() == 3 else aten.conv2d.default
        target = aten.conv2d.padding if isinstance(padding, str) else target
    columns = patches(Call(target, *settings), weight, x)
    rows = rows_in_runtime_order(weight).reshape(len(columns), -1, columns.shape[2])
    products = torch.einsum("gnk,gok->gon", columns, rows).flatten(0, 1)
    channel = 1 if settings else x.dim() - 1
    torch.testing.assert_close(products, expected.movedim(channel, 0).flatten(1), rtol=1e-4, atol=1e-4)


def test_moments_are_those_of_the_inputs():
    x, rounded, weight = torch.randn(3, 5), torch.randn(3, 5), torch.zeros(2, 5)
    call = Call(aten.linear.default)
    plain = layer_moments(call, weight, [x[:1], x[1:]], [rounded[:1], rounded[1:]], centered=False)
    torch.testing.assert_close(plain.cross[0], x.T @ rounded / 3)
    centered = layer_moments(call, weight, [x], [rounded], centered=True)
    expected = torch.cov(rounded.T, correction=0)
    torch.testing.assert_close(centered.quantized[0], expected)


def outputs_error(quantized: nn.Module, exact: torch.Tensor, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((quantized(x) - exact).square().mean())


@pytest.mark.parametrize("bits", [7, "auto"])
def test_outputs_come_nearer_and_the_file_follows(bits, x):
    model = settled(Residual(), 3, 32, 32)
    exact = model(x).detach()
    nearest = outputs_error(quantize(settled(Residual(), 3, 32, 32), x, weight_bits=bits), exact, x)
    quantized = quantize(model, x, weight_bits=bits, rounding="learned")
    assert outputs_error(quantized, exact, x) < nearest
    file = torch.from_numpy(run(exported(quantized, x), x))
    assert (file - quantized(x).detach()).abs().mean() < 0.02 * exact.std()


def test_the_weights_that_were_chosen_round_to_themselves(x):
    quantized = quantize(settled(Residual(), 3, 32, 32), x, rounding="learned")
    before = {name: value.clone() for name, value in quantized.model.state_dict().items()}
    output = quantized(x).detach()
    again = reconstruct(quantized, [(x,)], biases=False)
    assert again == 6
    assert all((before[name] - value).abs().max() < 0.1 for name, value in quantized.model.state_dict().items())
    assert (quantized(x).detach() - output).abs().mean() < 0.2 * output.std()


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.layer(F.relu(self.layer(x)))).mean((2, 3))


def test_a_shared_weight_is_left_alone(x):
    model = settled(Shared(), 3, 32, 32)
    weight = model.layer.weight.detach().clone()
    quantized = quantize(model, x, rounding="learned")
    assert torch.equal(quantized.model.layer.weight, weight)
