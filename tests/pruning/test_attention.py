import pytest
import torch
from torch import nn

from adaptkit.pruning.attention import SplitAttention, split_all_attention, split_attention


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
