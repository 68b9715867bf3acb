"""How many ranks a layer keeps: by energy, by variational Bayes, or within a budget over layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_GRID = 1000
_REFINEMENTS = 3


def energy_rank(values: Tensor, energy: float) -> int:
    """Return the smallest rank that keeps a share of the energy, Σ_{i ≤ r} σ_i² ≥ e Σ σ_i².

    Args:
        values: Squared singular values, largest first.
        energy: e, in 0 … 1.

    Example:
        >>> energy_rank(torch.tensor([6.0, 3.0, 1.0]), 0.85)
        2
    """
    kept = values.double().cumsum(0)
    return int((kept < energy * kept[-1] * (1 - 1e-12)).sum()) + 1


def lost_energy(values: Tensor) -> Tensor:
    """Return the share of the energy that is lost at each rank, from 1 to all.

    Example:
        >>> lost_energy(torch.tensor([6.0, 3.0, 1.0]))
        tensor([0.4000, 0.1000, 0.0000], dtype=torch.float64)
    """
    tails = values.double().flip(0).cumsum(0).flip(0)
    return torch.cat([tails[1:], tails.new_zeros(1)]) / tails[0].clamp(min=torch.finfo(tails.dtype).tiny)


def vbmf_rank(values: Tensor, rows: int, columns: int) -> int:
    """Return the rank that stands out of the noise by variational Bayesian matrix factorization; may be 0.

    The matrix is taken for one of low rank plus Gaussian noise of unknown variance s. With L the smaller and M the
    larger dimension, a = L / M and x_h = σ_h² / (M s), the free energy as a function of s is, up to constants,

        F(s) = Σ_{x_h > X} ψ₁(x_h) + Σ_h (x_h − ln x_h),
        ψ₁(x) = ln(τ + 1) + a ln(τ / a + 1) − τ,   τ = (x − (1 + a) + sqrt((x − 1 − a)² − 4a)) / 2,

    the threshold is X = (1 + t)(1 + a / t), where t solves ln(t + 1) / t + ln(t / a + 1) a / t = 1, and the rank is the
    number of x_h above X at the s that minimizes F (Nakajima et al. 2013, "Global analytic solution of fully-observed
    variational Bayesian matrix factorization", Journal of Machine Learning Research 14, theorems 2 and 9 to 11). F has
    one variable and several minima, so s is searched on a grid over all of its possible range.

    Args:
        values: Squared singular values, largest first.
        rows: Rows of the matrix.
        columns: Its columns.

    Example:
        >>> vbmf_rank(torch.tensor([900.0, 400.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0]), 8, 16)
        2
    """
    values = values.double()
    if float(values[0]) <= 0:
        return 0
    small, large = sorted((rows, columns))
    ratio = small / large
    threshold = _vbmf_threshold(ratio)
    noise = _noise_variance(values, small, large, threshold)
    return int((values > large * noise * threshold).sum())


def _vbmf_threshold(ratio: float) -> float:
    """Solve for t by bisection: the left side falls from above 1 to 0."""
    low, high = 1e-6 * ratio, 100.0
    for _ in range(200):
        middle = math.sqrt(low * high)
        side = math.log1p(middle) / middle + math.log1p(middle / ratio) * ratio / middle
        low, high = (middle, high) if side > 1 else (low, middle)
    return (1 + low) * (1 + ratio / low)


def _noise_variance(values: Tensor, small: int, large: int, threshold: float) -> float:
    """Minimize the free energy over the variance, between what the smallest and what all values would be as noise."""
    ratio = small / large
    most = min(math.ceil(small / (1 + ratio)) - 1, len(values) - 1)
    high = float(values.sum()) / (small * large)
    low = max(float(values[most]) / (large * threshold), float(values[most:].mean()) / large)
    # Values that are exactly zero would let the variance vanish.
    low = max(low, 1e-12 * high)
    for _ in range(_REFINEMENTS):
        grid = torch.logspace(math.log10(low), math.log10(max(high, low)), _GRID, dtype=torch.float64)
        best = int(_free_energy(values, grid, large, ratio, threshold).argmin())
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
    return float(grid[best])


def _free_energy(values: Tensor, variances: Tensor, large: int, ratio: float, threshold: float) -> Tensor:
    x = (values / (large * variances[:, None])).clamp(min=torch.finfo(values.dtype).tiny)
    signal = x > threshold
    inside = ((x - 1 - ratio).square() - 4 * ratio).clamp(min=0)
    tau = (0.5 * (x - 1 - ratio + inside.sqrt())).clamp(min=0)
    gain = torch.log1p(tau) + ratio * torch.log1p(tau / ratio) - tau
    return (x - x.log() + torch.where(signal, gain, 0)).sum(1)


@dataclass(frozen=True)
class Option:
    """One way to treat a layer.

    Args:
        cost: In any unit, the same for all layers.
        loss: The share of the energy that is lost.
        ranks: None for the layer as it is.
    """

    cost: float
    loss: float
    ranks: tuple[int, ...] | None = None


def choose_within(layers: Sequence[Sequence[Option]], budget: float) -> list[Option] | None:
    """Choose an option for each layer so that the costs keep to a budget and the greatest loss of a layer is smallest.

    For a bound on the loss each layer takes its cheapest option within it; the bound is the smallest that suffices.

    Args:
        layers: The options of each layer, of which one is without loss.
        budget: For the sum of the costs.

    Returns:
        An option for each layer; None where the cheapest of all cost more than the budget.

    Example:
        >>> layer = [Option(10, 0), Option(6, 0.1, (3,)), Option(2, 0.4, (1,))]
        >>> [option.ranks for option in choose_within([layer, layer], 13)]
        [(3,), (3,)]
    """
    bounds = sorted({option.loss for options in layers for option in options})

    def cheapest(bound: float) -> list[Option]:
        return [
            min((option for option in options if option.loss <= bound), key=lambda option: (option.cost, option.loss))
            for options in layers
        ]

    low, high = 0, len(bounds) - 1
    while low < high:
        middle = (low + high) // 2
        within = sum(option.cost for option in cheapest(bounds[middle])) <= budget
        low, high = (low, middle) if within else (middle + 1, high)
    chosen = cheapest(bounds[high])
    return chosen if sum(option.cost for option in chosen) <= budget else None
