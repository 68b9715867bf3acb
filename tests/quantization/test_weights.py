import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adaptkit.quantization.qdq import to_integers
from adaptkit.quantization.simulate import FakeQuantize
from adaptkit.quantization.weights import (
    LIMIT,
    bias_grid,
    is_depthwise,
    roomy,
    rows_in_runtime_order,
    weight_grid,
    worst_pair,
)
from tests.quantization.nets import exported, quantize, run


def slow_worst_pair(row: list[int]) -> int:
    """Try the four extreme pairs of activations on every two neighbours."""
    row = [*row, 0]
    pairs = [(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
    return max(abs(a * x + b * y) for a, b in pairs for x in (0, 255) for y in (0, 255))


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=9))
def test_worst_pair(row):
    assert int(worst_pair(torch.tensor([row]))) == slow_worst_pair(row)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (16, 1, 3, 3), (4, 16, 1, 1), (6, 5), (7, 9, 5)])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_auto_never_saturates_and_is_never_worse_than_seven_bits(shape, per_channel, seed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3
    error = {}
    for bits in (None, 7):
        grid = weight_grid(weight, bits, per_channel)
        integers = to_integers(weight.numpy(), grid).astype(np.int64)
        assert int(worst_pair(rows_in_runtime_order(torch.from_numpy(integers))).max()) <= LIMIT
        error[bits] = float((FakeQuantize(grid)(weight) - weight).square().sum())
    assert error[None] <= error[7] * 1.001


def test_eight_bits_use_the_whole_range_and_depthwise_needs_no_limit():
    weight = torch.ones(4, 1, 3, 3)
    assert weight_grid(weight, depthwise=True).scale == weight_grid(weight, 8).scale
    assert weight_grid(weight).scale[0] > weight_grid(weight, 8).scale[0] * 1.9
    assert weight_grid(torch.ones(4, 2, 3, 3)).scale[0] > weight_grid(torch.ones(4, 2, 3, 3), 8).scale[0] * 1.9


@pytest.mark.parametrize(("zeros", "odd"), [(0, True), (1, True), (40, False)])
def test_a_stray_zero_does_not_cost_two_bits_their_four_levels(zeros, odd):
    weight = torch.randn(4, 100)
    weight.view(-1)[:zeros] = 0
    grid = weight_grid(weight, 2)
    assert grid.odd == odd
    kept = FakeQuantize(grid)(weight)
    assert len(kept[3].unique()) == 4
    assert odd or bool((kept[weight == 0] == 0).all())


@pytest.mark.parametrize("zeros", [0, 150])
def test_one_bit_has_a_level_on_either_side_of_zero(zeros):
    weight = torch.randn(4, 100)
    weight.view(-1)[:zeros] = 0
    kept = FakeQuantize(weight_grid(weight, 1))(weight)
    assert torch.equal(kept[3].sign(), weight[3].sign())


def test_a_scale_is_nearly_the_best_of_a_fine_search():
    weight = torch.randn(1, 400)
    errors = []
    for ratio in np.linspace(0.3, 1.0, 300):
        scale = weight.abs().max() * ratio / 127
        rounded = torch.clamp(torch.round(weight / scale), -128, 127) * scale
        errors.append(float((rounded - weight).square().sum()))
    found = float((FakeQuantize(weight_grid(weight, 8))(weight) - weight).square().sum())
    assert found <= min(errors) * 1.1


def test_integers_are_those_of_the_simulator():
    weight = torch.randn(6, 5, 3, 3)
    for grid in (weight_grid(weight), weight_grid(weight, 7), weight_grid(weight, 8, per_channel=False)):
        scale = np.array(grid.scale, np.float32).reshape(-1, 1, 1, 1)
        assert np.array_equal(to_integers(weight.numpy(), grid) * scale, FakeQuantize(grid)(weight).numpy())


def test_dead_channels_get_a_scale_their_bias_fits():
    weight, bias = torch.zeros(2, 3), torch.tensor([5.0, 0.0])
    grid = roomy(weight_grid(weight), bias, input_scale=0.01)
    shift = bias_grid(grid, 0.01)
    assert np.allclose(to_integers(bias.numpy(), shift) * np.array(shift.scale), bias.numpy())


@pytest.mark.parametrize(
    ("shape", "groups", "answer"),
    [((8, 1, 3, 3), 8, True), ((16, 1, 3, 3), 8, False), ((16, 1, 3, 3), 1, False), ((8, 2, 3, 3), 4, False)],
)
def test_depthwise_is_one_channel_to_one_channel(shape, groups, answer):
    assert is_depthwise(shape, groups) is answer


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups"), [(1, 16, 1), (3, 16, 1), (16, 16, 1), (8, 8, 8), (8, 16, 8), (16, 16, 4)]
)
def test_the_worst_input_computes_the_same_optimized_or_not(inputs, outputs, groups):
    """On a CPU without VNNI this is where products saturate; elsewhere it passes for any weights."""
    layer = nn.Conv2d(inputs, outputs, 3, groups=groups, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    x = torch.ones(4, inputs, 6, 6)
    proto = exported(quantize(layer_with_head(layer), x, ranges="minmax"), x)
    np.testing.assert_allclose(run(proto, x), run(proto, x, optimize=False), rtol=1e-5)


def layer_with_head(layer):
    return nn.Sequential(layer, nn.ReLU()).eval()
