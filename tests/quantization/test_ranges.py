import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.quantization.ranges import Histogram, activation_grid, find_range
from adaptkit.quantization.simulate import FakeQuantize


def histogram(values: torch.Tensor, bins: int = 2048) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(torch.histc(values, bins, low, high).double(), low, high)


def error(values: torch.Tensor, interval: tuple[float, float], bits: int) -> float:
    return float((FakeQuantize(activation_grid(interval, bits=bits))(values) - values).square().mean())


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@settings(deadline=None, max_examples=25)
@given(st.floats(-50, 50), st.floats(0.01, 50), st.integers(0, 5))
def test_a_range_holds_zero_and_never_leaves_what_was_seen(method, shift, width, seed):
    values = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * width + shift
    low, high = find_range(histogram(values), method)
    assert low <= 0 <= high
    assert low >= min(float(values.min()), 0) - 1e-4 * width
    assert high <= max(float(values.max()), 0) + 1e-4 * width


@pytest.mark.parametrize("keep", [90.0, 99.0, 99.9])
def test_percentile_is_that_of_numpy(keep):
    values = torch.randn(20000)
    low, high = find_range(histogram(values), "percentile", percentile=keep)
    expected = np.percentile(values.numpy(), [(100 - keep) / 2, 100 - (100 - keep) / 2])
    assert np.allclose([low, high], expected, atol=0.06)


def test_mse_is_near_the_best_of_a_fine_search():
    values = torch.cat([torch.randn(20000).relu(), torch.tensor([12.0])])
    found = find_range(histogram(values), "mse", levels=16)
    best = min(error(values, (0.0, float(high)), bits=4) for high in np.linspace(1, 12, 400))
    assert error(values, found, bits=4) <= best * 1.05
    assert error(values, found, bits=4) < error(values, (0.0, 12.0), bits=4) / 2


def test_mse_shrinks_both_sides():
    values = torch.cat([torch.randn(50000), torch.tensor([12.0, -9.0])])
    low, high = find_range(histogram(values), "mse", levels=16)
    assert -7 < low < -1.5
    assert 1.5 < high < 7


def test_entropy_drops_a_lone_outlier():
    values = torch.cat([torch.randn(50000).abs(), torch.tensor([60.0])])
    low, high = find_range(histogram(values), "entropy")
    assert low == 0
    assert high < 40


def test_a_constant_tensor_has_a_grid():
    constant = Histogram(torch.zeros(8, dtype=torch.float64), 3.0, 3.0)
    assert find_range(constant, "mse") == (0.0, 3.0)
    assert find_range(Histogram(torch.zeros(8, dtype=torch.float64), 0.0, 0.0), "entropy") == (0.0, 0.0)
    assert activation_grid((0.0, 0.0)).scale[0] > 0


@pytest.mark.parametrize("signed", [False, True])
@given(st.floats(-1000, 0), st.floats(0, 1000))
def test_a_grid_covers_its_interval_and_holds_zero(signed, low, high):
    grid = activation_grid((low, high), signed)
    scale, zero = grid.scale[0], grid.zero_point[0]
    assert scale * (grid.lowest - zero) <= low + scale
    assert scale * (grid.highest - zero) >= high - scale
    assert float(FakeQuantize(grid)(torch.zeros(1))) == 0


@given(st.floats(0.015625, 1000, width=32))
def test_a_grid_never_passes_a_clip(bound):
    grid = activation_grid((0.0, bound))
    assert float(np.float32(grid.scale[0]) * np.float32(255)) <= bound
