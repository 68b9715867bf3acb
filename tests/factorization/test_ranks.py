import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.factorization.choose import rounded
from adaptkit.factorization.ranks import Option, choose_within, energy_rank, lost_energy, vbmf_rank

VALUES = st.lists(st.floats(0.01, 100), min_size=1, max_size=8)


@settings(deadline=None)
@given(values=VALUES, energy=st.floats(0.01, 0.999))
def test_energy_rank_is_the_first_that_suffices(values, energy):
    values.sort(reverse=True)
    rank = energy_rank(torch.tensor(values), energy)
    assert sum(values[:rank]) >= energy * sum(values) * (1 - 1e-6)
    assert rank == 1 or sum(values[: rank - 1]) < energy * sum(values) * (1 + 1e-6)


@settings(deadline=None)
@given(values=VALUES)
def test_lost_energy_is_what_is_cut(values):
    values.sort(reverse=True)
    wanted = [sum(values[rank:]) / sum(values) for rank in range(1, len(values) + 1)]
    np.testing.assert_allclose(lost_energy(torch.tensor(values)), wanted, atol=1e-6)


def test_nothing_is_lost_of_nothing():
    assert lost_energy(torch.zeros(3)).tolist() == [0, 0, 0]


@settings(deadline=None)
@given(rank=st.floats(0.01, 64), full=st.integers(1, 64), multiple=st.integers(1, 16))
def test_rounded_ranks_are_multiples_or_full(rank, full, multiple):
    found = rounded(rank, full, multiple)
    assert found == full or found % multiple == 0
    assert min(rank, full) <= found + 1e-6
    assert found < rank + multiple or found == multiple


def noisy(rows: int, columns: int, rank: int, strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(rows, rank)))
    v, _ = np.linalg.qr(rng.normal(size=(columns, rank)))
    return strength * (u @ v.T) + 0.1 * rng.normal(size=(rows, columns))


def squared(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.linalg.svd(matrix, compute_uv=False) ** 2)


@pytest.mark.parametrize(("rows", "columns"), [(30, 30), (20, 90), (90, 20), (64, 576)])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_vbmf_finds_the_planted_rank(rows, columns, rank):
    matrix = noisy(rows, columns, rank, 5.0, seed=rank)
    assert vbmf_rank(squared(matrix), rows, columns) == rank
    assert vbmf_rank(squared(1e3 * matrix), rows, columns) == rank


@pytest.mark.parametrize(("rows", "columns"), [(30, 30), (20, 90), (64, 576)])
def test_vbmf_finds_nothing_in_noise(rows, columns):
    matrix = np.random.default_rng(0).normal(size=(rows, columns))
    assert vbmf_rank(squared(matrix), rows, columns) == 0
    assert vbmf_rank(torch.zeros(20), 20, 90) == 0


def evb_by_hand(singular: list[float], rows: int, columns: int) -> int:
    """Minimize the variational free energy itself, component by component, over the noise variance on a grid.

    For one component with prior variances at their best and independent Gaussian posteriors, the posterior means and
    variances of both factors are iterated to the fixed point of their update equations (Nakajima et al. 2013, section
    2); the component stays where that lowers its free energy below the one of the empty component.
    """
    small, large = sorted((rows, columns))
    best = (math.inf, 0)
    mean_square = sum(g * g for g in singular) / (rows * columns)
    for noise in np.geomspace(mean_square * 3e-3, mean_square, 60):
        gains = [gain(g, small, large, noise) for g in singular]
        energy = rows * columns * math.log(noise) + sum(g * g for g in singular) / noise + 2 * sum(gains)
        best = min(best, (energy, sum(one < 0 for one in gains)))
    return best[1]


def gain(singular: float, small: int, large: int, noise: float) -> float:
    """Return the free energy of a component less that of the empty one; 0 where it is better empty."""
    a = b = math.sqrt(singular)
    var_a = var_b = prior_a = prior_b = 1.0
    for _ in range(300):
        var_a = noise / (b * b + large * var_b + noise / prior_a)
        a = singular * b * var_a / noise
        var_b = noise / (a * a + small * var_a + noise / prior_b)
        b = singular * a * var_b / noise
        prior_a, prior_b = a * a / small + var_a, b * b / large + var_b
        if a * b < 1e-6 * singular:
            return 0.0
    norms = (a * a + small * var_a) * (b * b + large * var_b)
    energy = small * math.log(prior_a / var_a) + large * math.log(prior_b / var_b)
    energy += (norms - 2 * a * b * singular) / noise
    return min(energy / 2, 0.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 14)])
def test_vbmf_is_the_minimum_of_the_free_energy(rows, columns, seed):
    matrix = noisy(rows, columns, 1 + seed % 3, 1.5 + 0.3 * seed, seed)
    values = squared(matrix)
    assert vbmf_rank(values, rows, columns) == evb_by_hand([math.sqrt(v) for v in values.tolist()], rows, columns)


OPTIONS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda pair: Option(pair[0], pair[1] / 10, (1,))), max_size=4
).map(lambda options: [Option(10, 0.0), *options])


@settings(deadline=None)
@given(layers=st.lists(OPTIONS, min_size=1, max_size=4), budget=st.integers(0, 40))
def test_the_greatest_loss_within_the_budget_is_smallest(layers, budget):
    chosen = choose_within(layers, budget)
    possible = [some for some in itertools.product(*layers) if sum(option.cost for option in some) <= budget]
    if not possible:
        assert chosen is None
        return
    assert sum(option.cost for option in chosen) <= budget
    wanted = min(max(option.loss for option in some) for some in possible)
    assert max(option.loss for option in chosen) == wanted
