import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.quantization.plan import Grid
from adaptkit.quantization.rounding import Moments, learn_rounding, neighbours
from adaptkit.quantization.weights import LIMIT, worst_pair


def problem(seed: int, groups: int = 1, out: int = 2, width: int = 6) -> tuple[torch.Tensor, Grid, torch.Tensor]:
    """Weights, a coarse grid of them, and correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(groups, out, width, generator=generator)
    x = torch.randn(groups, 40, width, generator=generator) + torch.randn(groups, 40, 1, generator=generator)
    scale = tuple((rows.abs().amax(2) / 7).flatten().tolist())
    return rows, Grid(scale, (0,) * len(scale), bits=4, axis=0), x


def moments(x: torch.Tensor, rounded: torch.Tensor) -> Moments:
    return Moments(rounded.transpose(1, 2) @ rounded / x.shape[1], x.transpose(1, 2) @ rounded / x.shape[1])


def error(rows: torch.Tensor, weights: torch.Tensor, x: torch.Tensor, rounded: torch.Tensor) -> np.ndarray:
    """Mean squared error of every output, by multiplying out."""
    wanted = np.einsum("gok,gnk->gon", rows.numpy(), x.numpy())
    got = np.einsum("gok,gnk->gon", weights.numpy(), rounded.numpy())
    return ((wanted - got) ** 2).mean(2)


def step(grid: Grid, rows: torch.Tensor) -> torch.Tensor:
    return torch.tensor(grid.scale).reshape(*rows.shape[:2], 1)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_nearest_and_near_the_best_of_all_choices(seed, groups):
    rows, grid, x = problem(seed, groups)
    rounded = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 100))
    found = learn_rounding(rows, grid, moments(x, rounded)) * step(grid, rows)
    low, high = (side * step(grid, rows) for side in neighbours(rows, grid))
    nearest = torch.where(rows - low <= high - rows, low, high)
    every = [
        error(rows, torch.where(torch.tensor(choice), high, low), x, rounded)
        for choice in itertools.product([False, True], repeat=rows.shape[2])
    ]
    best = np.min(every, 0)
    ours = error(rows, found, x, rounded)
    assert (ours <= error(rows, nearest, x, rounded) + 1e-6).all()
    assert ours.sum() <= 1.6 * best.sum()


def test_correlated_inputs_gain_most():
    rows, grid, x = problem(0, width=40)
    found = learn_rounding(rows, grid, moments(x, x))
    nearest = torch.round(rows / step(grid, rows))
    errors = [error(rows, integers * step(grid, rows), x, x).sum() for integers in (found, nearest)]
    assert errors[0] < 0.5 * errors[1]


@given(st.integers(0, 1000), st.booleans())
def test_every_weight_stays_beside_its_value(seed, odd):
    rows, grid, x = problem(seed)
    if odd:
        grid = Grid(grid.scale, grid.zero_point, bits=2, axis=0, odd=True)
    found = learn_rounding(rows, grid, moments(x, x))
    assert (
        ((found - rows / step(grid, rows)).abs() < (2 if odd else 1) + 1e-4)
        .logical_or((found == grid.lowest) | (found == grid.highest))
        .all()
    )
    assert ((found >= grid.lowest) & (found <= grid.highest)).all()
    assert not odd or (found % 2 != 0).all()


@pytest.mark.parametrize("width", [6, 7])
@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_must_not_saturate_do_not(seed, width):
    generator = torch.Generator().manual_seed(seed)
    integers = torch.full((1, 8, width), 64.0)
    rows = integers + 0.4 * torch.rand(integers.shape, generator=generator)
    grid = Grid((1.0,) * 8, (0,) * 8, axis=0)
    # Inputs that were made smaller by rounding ask every weight to go up.
    x = torch.rand(1, 50, width, generator=generator)
    free = learn_rounding(rows, grid, moments(x, 0.99 * x))
    bound = learn_rounding(rows, grid, moments(x, 0.99 * x), paired=True)
    assert int(worst_pair(free[0]).max()) > LIMIT
    assert int(worst_pair(bound[0]).max()) <= LIMIT


def test_inputs_that_are_always_zero_leave_weights_at_the_nearest():
    rows, grid, x = problem(0)
    x[:, :, 2] = 0
    found = learn_rounding(rows, grid, moments(x, x))
    assert torch.equal(found[..., 2], torch.round(rows / step(grid, rows))[..., 2])


@pytest.mark.parametrize("seed", range(5))
def test_a_pruned_weight_stays_zero(seed):
    rows, grid, x = problem(seed, width=24)
    rows[..., ::2] = 0
    integers = learn_rounding(rows, grid, moments(x, x))
    assert (integers[..., ::2] == 0).all()
    assert (integers[..., 1::2] != 0).any()
