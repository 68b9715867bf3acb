import pytest
import torch
from torch import nn

from adaptkit.pruning import StructuredPruning
from adaptkit.pruning.attention import SplitAttention, split_all_attention, split_attention
from adaptkit.pruning.masks import PATTERN, lost_zeros, mark, mark_pattern, marked, zeros
from adaptkit.technique import Context


def _packed(**settings) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(12, 3, **settings).double().eval()
    if packed.in_proj_bias is not None:
        nn.init.normal_(packed.in_proj_bias)
        nn.init.normal_(packed.out_proj.bias)
    return packed


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 7, "vdim": 5}], ids=["same", "own"])
@pytest.mark.parametrize("masks", ["none", "bool", "float", "per_head", "padding"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_computes_what_torch_computes(batch_first, bias, sizes, masks, need_weights):
    packed = _packed(batch_first=batch_first, bias=bias, **sizes)
    split = split_attention(packed)
    query = torch.randn(2, 4, 12, dtype=torch.double)
    key = torch.randn(2, 6, sizes.get("kdim", 12), dtype=torch.double)
    value = torch.randn(2, 6, sizes.get("vdim", 12), dtype=torch.double)
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    hidden = torch.rand(4, 6) < 0.3
    hidden[:, 0] = False
    padding = torch.tensor([[False] * 5 + [True], [False] * 3 + [True] * 3])
    given = {
        "none": {},
        "bool": {"attn_mask": hidden},
        "float": {"attn_mask": torch.randn(4, 6, dtype=torch.double)},
        "per_head": {"attn_mask": torch.randn(6, 4, 6, dtype=torch.double)},
        "padding": {"key_padding_mask": padding},
    }[masks]
    want, want_weights = packed(query, key, value, need_weights=need_weights, **given)
    got, got_weights = split(query, key, value, need_weights=need_weights, **given)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got_weights, want_weights, rtol=1e-9, atol=1e-9)


def test_without_a_batch_and_with_weights_of_every_head():
    packed = _packed()
    x = torch.randn(5, 12, dtype=torch.double)
    wanted = packed(x, x, x, average_attn_weights=False)
    for got, want in zip(split_attention(packed)(x, x, x, average_attn_weights=False), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_torchs_own_encoder_takes_it():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True).double().eval()
    x = torch.randn(2, 5, 12, dtype=torch.double)
    with torch.no_grad():
        want = layer(x)
        assert split_all_attention(layer) == ["self_attn"]
        torch.testing.assert_close(layer(x), want, rtol=1e-9, atol=1e-9)


def test_what_has_no_counterpart_is_left():
    net = nn.Sequential(nn.MultiheadAttention(12, 3, add_bias_kv=True))
    assert split_all_attention(net) == []
    assert isinstance(net[0], nn.MultiheadAttention)


def test_arguments_rebuild_it_after_a_cut():
    split = SplitAttention(12, 3, 4, 12, 12, bias=False, dropout=0.1, batch_first=False)
    split.q_proj.weight = nn.Parameter(torch.zeros(8, 12))
    split.follow()
    arguments = split.arguments()
    assert arguments["num_heads"] == 2
    assert SplitAttention(**arguments).q_proj.weight.shape == (8, 12)


@pytest.mark.parametrize(("sizes", "name"), [({}, "in_proj_weight"), ({"kdim": 7, "vdim": 5}, "k_proj_weight")])
def test_sparse_and_frozen_weights_are_so_afterwards(sizes, name):
    net = nn.ModuleList([_packed(**sizes)])
    mark(net, [f"0.{name}", "0.out_proj.weight"])
    mark_pattern(net, [f"0.{name}"])
    net[0].get_parameter(name).requires_grad_(False)
    with torch.no_grad():
        net[0].get_parameter(name)[:, 0] = 0
    before = zeros(net)
    split_all_attention(net)
    layers = ["k_proj"] if sizes else ["q_proj", "k_proj", "v_proj"]
    assert list(marked(net)) == [f"0.{layer}.weight" for layer in [*layers, "out_proj"]]
    assert [path for path, module in net[0].named_children() if hasattr(module, PATTERN)] == layers
    assert [key for key, p in net[0].named_parameters() if not p.requires_grad] == [f"{one}.weight" for one in layers]
    assert lost_zeros(before, net) == []


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.narrow(self.wide(x).relu())


@pytest.mark.parametrize(
    ("patterns", "heads", "wide"),
    [
        ({"ignore": ("MultiheadAttention",)}, 32, 16),
        ({"targets": ("MultiheadAttention",)}, 8, 64),
        ({"targets": ("attention",)}, 8, 64),
        ({"targets": ("Linear",)}, 32, 16),
    ],
)
def test_patterns_mean_the_model_as_it_was_given(patterns, heads, wide):
    share = 0.64 if wide < 64 else 0.63
    net = StructuredPruning(params=share, **patterns).apply(Block(), Context((torch.zeros(2, 3, 32),)))
    assert (net.attention.q_proj.out_features, net.wide.out_features) == (heads, wide)
