"""The ranks of each layer, by the rule of the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from adaptkit.errors import TargetError
from adaptkit.factorization.base import Factorization
from adaptkit.factorization.core import spectrum
from adaptkit.factorization.layers import Candidate, no_smaller
from adaptkit.factorization.ranks import Option, choose_within, energy_rank, lost_energy, vbmf_rank
from adaptkit.factorization.schemes import Ranks
from adaptkit.factorization.times import PairTimes

_TIMED = 8
"""Ranks of a layer that are timed for a budget in latency."""

Choice = Ranks | str
"""Ranks, or why there are none."""

Cost = Callable[[Candidate, Ranks | None], float]


def choose_ranks(technique: Factorization, candidates: Sequence[Candidate], times: PairTimes) -> dict[str, Choice]:
    """Choose the ranks of every layer.

    Args:
        technique: The settings.
        candidates: The layers.
        times: Where time is measured, for a budget in latency.

    Raises:
        TargetError: The smallest ranks cost more than the budget.
    """
    rule, value = technique.rule()
    if rule in ("macs", "latency"):
        cost = _macs if rule == "macs" else _seconds(times)
        grids = [_grid(candidate, technique.round_to) for candidate in candidates]
        if rule == "latency":
            grids = [_thinned(grid, _TIMED) for grid in grids]
        return _within(technique, candidates, grids, cost, float(value))
    if rule == "energy":
        return {c.name: energy_ranks(c, float(value), technique.round_to) for c in candidates}
    if value == "vbmf":
        return {c.name: _vbmf(c, technique.round_to) for c in candidates}
    if isinstance(value, int):
        return {c.name: _fixed(c, value) for c in candidates}
    return {
        c.name: tuple(rounded(float(value) * full, full, technique.round_to) for full in _full(c)) for c in candidates
    }


def rounded(rank: float, full: int, multiple: int) -> int:
    """Round a rank up to a multiple, at least one and at most the full rank.

    Example:
        >>> rounded(9, 64, 8), rounded(9, 12, 8), rounded(0.2, 12, 1)
        (16, 12, 1)
    """
    # A share of a whole number, such as 0.1 of 30, is a little more than it should be in binary.
    return min(full, max(1, math.ceil(rank / multiple - 1e-9)) * multiple)


def energy_ranks(candidate: Candidate, energy: float, multiple: int) -> Ranks:
    """Return the smallest ranks that keep a share of the energy; every mode may lose the same part of the rest.

    The error of a sum of products is not known before it is made: there the rank is found by trying, by bisection.
    """
    if candidate.scheme.measured:
        modes = candidate.scheme.unfoldings(candidate.weight())
        each = 1 - (1 - energy) / len(modes)
        return tuple(rounded(energy_rank(values, each), len(values), multiple) for values in _spectra(modes))
    low, high = 1, _largest(candidate, multiple)
    while low < high:
        middle = (low + high) // 2
        _, error = candidate.factors((middle * multiple,))
        low, high = (low, middle) if error**2 <= 1 - energy else (middle + 1, high)
    return (high * multiple,)


def _largest(candidate: Candidate, multiple: int) -> int:
    """Return how many multiples of the rank there are before nothing is saved, and one more."""
    count = 1
    while not no_smaller(candidate.shape, candidate.scheme.shapes(candidate.shape, (count * multiple,))):
        count += 1
    return count


def _vbmf(candidate: Candidate, multiple: int) -> Choice:
    modes = candidate.scheme.unfoldings(candidate.weight())
    found = [vbmf_rank(values, *mode.shape) for mode, values in zip(modes, _spectra(modes), strict=True)]
    if 0 in found:
        return "nothing in it stands out of the noise (vbmf)"
    return tuple(rounded(rank, min(mode.shape), multiple) for rank, mode in zip(found, modes, strict=True))


def _fixed(candidate: Candidate, rank: int) -> Ranks:
    # A sum of products may have more terms than any dimension.
    return tuple(min(rank, full) for full in _full(candidate)) if candidate.scheme.measured else (rank,)


def _full(candidate: Candidate) -> list[int]:
    return [min(mode.shape) for mode in candidate.scheme.unfoldings(candidate.layer.weight.detach())]


def _grid(candidate: Candidate, multiple: int) -> list[tuple[Ranks, float]]:
    """List ranks with the share of the energy that they lose, fewest first; those that save nothing are left out.

    All modes lose about the same. The loss of a sum of products is not known; the list has its ranks alone.
    """
    if not candidate.scheme.measured:
        return [((count * multiple,), 1.0) for count in range(1, _largest(candidate, multiple))]
    losses = [lost_energy(values) for values in _spectra(candidate.scheme.unfoldings(candidate.weight()))]
    first = losses[0]
    grid: list[tuple[Ranks, float]] = []
    for start in range(multiple, len(first) + multiple, multiple):
        rank = min(start, len(first))
        others = [rounded(int((loss > first[rank - 1]).sum()) + 1, len(loss), multiple) for loss in losses[1:]]
        ranks = (rank, *others)
        if not no_smaller(candidate.shape, candidate.scheme.shapes(candidate.shape, ranks)):
            lost = sum(float(loss[r - 1]) for loss, r in zip(losses, ranks, strict=True))
            grid.append((ranks, min(lost, 1.0)))
    return grid


def _spectra(modes: Sequence[Tensor]) -> list[Tensor]:
    return [spectrum(mode) for mode in modes]


def _thinned(grid: list[tuple[Ranks, float]], count: int) -> list[tuple[Ranks, float]]:
    """Keep some, evenly spaced, the first and the last among them."""
    if len(grid) <= count:
        return grid
    return [grid[round(i * (len(grid) - 1) / (count - 1))] for i in range(count)]


def _macs(candidate: Candidate, ranks: Ranks | None) -> float:
    parts = [candidate.shape] if ranks is None else candidate.scheme.shapes(candidate.shape, ranks)
    return float(sum(part.macs for part in parts))


def _seconds(times: PairTimes) -> Cost:
    def cost(candidate: Candidate, ranks: Ranks | None) -> float:
        own = times.seconds(candidate.shape)
        return (
            own
            if ranks is None
            else own * times.ratio(candidate.shape, candidate.scheme.shapes(candidate.shape, ranks))
        )

    return cost


def _within(
    technique: Factorization,
    candidates: Sequence[Candidate],
    grids: Sequence[list[tuple[Ranks, float]]],
    cost: Cost,
    share: float,
) -> dict[str, Choice]:
    options = [
        [Option(cost(c, None), 0.0), *(Option(cost(c, ranks), lost, ranks) for ranks, lost in grid)]
        for c, grid in zip(candidates, grids, strict=True)
    ]
    known = all(candidate.scheme.measured for candidate in candidates)
    chosen = _least_loss(technique, options, share) if known else [_own_share(each, share) for each in options]
    rule = f"{technique.rule()[0]}: {share:g}"
    reasons = (f"{rule} is kept without it", f"no rank of it keeps {rule}")
    return {
        candidate.name: option.ranks or ("no rank would save anything" if len(each) == 1 else reasons[not known])
        for candidate, option, each in zip(candidates, chosen, options, strict=True)
    }


def _least_loss(technique: Factorization, options: Sequence[list[Option]], share: float) -> list[Option]:
    total = sum(each[0].cost for each in options)
    chosen = choose_within(options, share * total)
    if chosen is None:
        least = sum(min(option.cost for option in each) for each in options) / total
        raise TargetError(
            f"{technique.name}: {technique.rule()[0]}: {share:g} cannot be reached; the smallest ranks of all layers "
            f"still cost {math.ceil(1000 * least) / 1000:g}. Name more layers, or lower round_to"
        )
    return chosen


def _own_share(options: list[Option], share: float) -> Option:
    """Return the highest rank within the share of the layer's own cost; the layer itself where there is none."""
    within = [option for option in options[1:] if option.cost <= share * options[0].cost]
    return within[-1] if within else options[0]
