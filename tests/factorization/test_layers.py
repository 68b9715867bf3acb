"""The sequences that replace layers compute what the composed weight computes, whatever the layer's settings."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adaptkit.factorization.layers import Candidate, build, no_smaller
from adaptkit.factorization.moments import whitening
from adaptkit.factorization.schemes import Channel, Cp, SparseChannel, Spatial, Tucker2
from adaptkit.profiling.layer_latency import LayerShape, layer_shapes
from adaptkit.profiling.macs import count_macs

SCHEMES = [Channel(), Spatial(), Tucker2(), Cp(), Cp("separable")]


def ranks_of(scheme: object, rank: int) -> tuple[int, ...]:
    return (rank, rank) if isinstance(scheme, Tucker2) else (rank,)


def replaced(layer: nn.Module, scheme, ranks, x: torch.Tensor) -> tuple[nn.Sequential, list[LayerShape], torch.Tensor]:
    """Return the sequence, its shapes, and the output of the layer with the composed weight."""
    shape = layer_shapes(nn.Sequential(layer), (x,))["0"]
    weight = layer.weight.detach()
    factors, shapes = scheme.factors(weight, ranks), scheme.shapes(shape, ranks)
    sequence = build(layer, shapes, factors)
    with torch.no_grad():
        layer.weight.copy_(scheme.compose(factors))
        return sequence, shapes, layer(x)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(deadline=None, max_examples=60)
@given(
    scheme=st.sampled_from(SCHEMES),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from(["same", "valid"])),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    rank=st.integers(1, 3),
)
def test_every_setting_of_a_convolution_is_kept(scheme, kernel, stride, padding, dilation, mode, bias, rank):
    stride = (1, 1) if padding == "same" else stride
    layer = nn.Conv2d(4, 5, kernel, stride, padding, dilation, bias=bias, padding_mode=mode)
    x = torch.randn(2, 4, 11, 12)
    sequence, shapes, wanted = replaced(layer, scheme, ranks_of(scheme, rank), x)
    torch.testing.assert_close(sequence(x), wanted, rtol=1e-4, atol=1e-4)
    assert (sequence[-1].bias is not None) == bias
    assert all(part.bias is None for part in sequence[:-1])
    assert sum(p.numel() for p in sequence.parameters()) == sum(s.weights for s in shapes) + 5 * bias
    if padding != "same" or all(k % 2 for k in kernel):
        macs = count_macs(nn.Sequential(sequence), (x,))
        assert sum(shape.macs for shape in shapes) == macs.total


@pytest.mark.parametrize("scheme", [Channel(), Spatial(), Tucker2()])
def test_full_rank_changes_nothing(scheme):
    layer = nn.Conv2d(6, 5, (3, 2), stride=2, padding=1)
    x = torch.randn(2, 6, 9, 9)
    before = layer(x).detach()
    full = tuple(min(mode.shape) for mode in scheme.unfoldings(layer.weight))
    sequence, _, _ = replaced(layer, scheme, full, x)
    torch.testing.assert_close(sequence(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "scheme", [Channel(), SparseChannel(torch.tensor([True] * 3 + [False] * 4), torch.zeros(9), 0.5)]
)
@pytest.mark.parametrize("shape", [(9,), (2, 9), (2, 3, 9)])
def test_linear_layers_keep_their_dimensions(scheme, shape):
    layer = nn.Linear(9, 7)
    if isinstance(scheme, SparseChannel):
        scheme = dataclasses.replace(scheme, inputs=scheme.inputs.bool())
    x = torch.randn(2, *shape)
    sequence, _, wanted = replaced(layer, scheme, (4,), x)
    torch.testing.assert_close(sequence(x), wanted, rtol=1e-4, atol=1e-5)
    assert [type(part) for part in sequence] == [nn.Linear, nn.Linear]


def test_svd_errors_are_those_of_the_matrices_that_are_cut():
    weight = torch.randn(6, 5, 3, 4)
    matrices = {
        Channel(): weight.reshape(6, -1).numpy(),
        Spatial(): np.array(
            [[float(weight[o, i, h, w]) for o in range(6) for w in range(4)] for i in range(5) for h in range(3)]
        ),
    }
    for scheme, matrix in matrices.items():
        s = np.linalg.svd(matrix, compute_uv=False)
        for rank in (1, 3, 6):
            error = float((scheme.compose(scheme.factors(weight, (rank,))) - weight).norm())
            assert error == pytest.approx(np.linalg.norm(s[rank:]), rel=1e-4, abs=1e-3)


def test_type_device_and_gradient_are_those_of_the_layer():
    layer = nn.Conv2d(8, 8, 3, dtype=torch.bfloat16)
    layer.weight.requires_grad_(False)
    shape = LayerShape("conv", 8, 8, (3, 3), input_size=(5, 5))
    candidate = Candidate("c", layer, shape, Channel())
    factors, error = candidate.factors((2,))
    sequence = build(layer, Channel().shapes(shape, (2,)), factors)
    assert {p.dtype for p in sequence.parameters()} == {torch.bfloat16}
    assert [p.requires_grad for p in sequence.parameters()] == [False, False, True]
    assert 0.3 < error < 1


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_weighting_minimizes_the_error_of_the_outputs(kind):
    """By the definition: singular values of W C^½, computed by numpy, and what samples really lose."""
    torch.manual_seed(0)
    spread = torch.linspace(3, 0.05, 12)
    x = torch.randn(400, 12) @ torch.linalg.qr(torch.randn(12, 12))[0] * spread
    layer = nn.Linear(12, 10) if kind == "linear" else nn.Conv2d(12, 10, 1)
    moment = x.T @ x / len(x)
    shape = layer_shapes(nn.Sequential(layer), (x if kind == "linear" else x[:, :, None, None],))["0"]
    plain, weighted = (Candidate("c", layer, shape, Channel(), w) for w in (None, whitening(moment)))
    weight = layer.weight.detach().reshape(10, 12)
    s = np.linalg.svd((weight @ whitening(moment)[0]).numpy(), compute_uv=False)
    losses = []
    for candidate in (plain, weighted):
        factors, error = candidate.factors((4,))
        approximation = Channel().compose(factors).reshape(10, 12)
        losses.append(float((x @ (weight - approximation).T).square().sum(1).mean()))
    assert error == pytest.approx(np.linalg.norm(s[4:]) / np.linalg.norm(s), rel=1e-3)
    assert losses[1] == pytest.approx(float((s[4:] ** 2).sum()), rel=0.02)
    assert losses[1] < 0.6 * losses[0]


def test_what_saves_nothing_is_known():
    layer = LayerShape("conv", 16, 16, (3, 3), padding=(1, 1), stride=(2, 2), input_size=(8, 8))
    assert not no_smaller(layer, Tucker2().shapes(layer, (8, 8)))
    # Fewer weights, but the first 1 × 1 convolution works on four times as many pixels.
    assert no_smaller(layer, Tucker2().shapes(layer, (12, 14)))
    assert no_smaller(layer, Channel().shapes(layer, (16,)))
