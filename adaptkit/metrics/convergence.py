"""How fast training gets to a target, over several seeds, the runs that never get there counted too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.intervals import exact_share

Cost = Literal["steps", "rounds", "bytes", "seconds"]
FEWEST_RUNS = 3


@dataclass(frozen=True)
class Point:
    """A place on the curve of a run: what the metric was, and what had been spent until then.

    Args:
        value: The metric; NaN, as after a divergence, reaches no target.
        steps: Optimizer steps; None where they were not counted, as with the others.
        rounds: Of communication.
        bytes: Sent and received.
        seconds: Of wall time.
    """

    value: float
    steps: float | None = None
    rounds: float | None = None
    bytes: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Convergence:
    """What it costs to reach a target.

    A run that stops before the target says that it takes more than that run's budget, no more and no less (it is
    censored). So there are three figures, none of which drops such runs.

    Args:
        runs: How many there are.
        reached: How many reached the target.
        share: Where the share of all possible runs that reach it within such budgets is, with 95 % confidence.
        median_reached: Median cost of the runs that reached it; flatters where many did not. None where none did.
        median: Median over all runs (Kaplan and Meier 1958): the cost by which half of them are there. None where half
            of them never are.
        restricted_mean: Mean of min(cost, horizon) over all runs: what one spends on a run that is stopped there.
        horizon: The smallest budget of a run that never reached it, so that no guess is needed of what any run would
            have done later; the highest cost where all reached it.
    """

    runs: int
    reached: int
    share: Estimate
    median_reached: float | None
    median: float | None
    restricted_mean: float
    horizon: float


def cost_to_target(
    runs: Sequence[Sequence[Point]], target: float, *, higher_is_better: bool = True, hold: int = 1
) -> dict[Cost, Convergence]:
    """Say what it costs to reach a target, in everything that was counted.

    Args:
        runs: The curve of each seed, three seeds or more.
        target: Of the metric.
        higher_is_better: Whether the target is reached from below.
        hold: Points in a row that have to be there; the cost is that of the first. With more than one, a lucky point of
            a noisy curve is no arrival.

    Returns:
        For each cost that every point gives.

    Raises:
        DataError: There are fewer than three runs, one is empty or shorter than `hold`, a cost falls along a curve, or
            no cost is given by every point.

    Example:
        >>> runs = [[Point(0.5, steps=10), Point(0.9, steps=20)] for _ in range(3)] + [[Point(0.4, steps=10)]]
        >>> found = cost_to_target(runs, 0.8)["steps"]
        >>> found.reached, found.median, found.restricted_mean, found.horizon
        (3, 20.0, 10.0, 10.0)
    """
    if len(runs) < FEWEST_RUNS:
        raise DataError(
            f"convergence takes {FEWEST_RUNS} seeds or more; got {len(runs)}: one run tells nothing of the next"
        )
    places = [_arrival(number, run, target, higher_is_better, hold) for number, run in enumerate(runs)]
    costs = [cost for cost in get_args(Cost) if all(getattr(point, cost) is not None for run in runs for point in run)]
    if not costs:
        raise DataError(f"no cost is given by every point: give {', '.join(get_args(Cost))}, or some of them")
    return {cost: _summary(*_observed(runs, places, cost)) for cost in costs}


def _arrival(number: int, run: Sequence[Point], target: float, higher_is_better: bool, hold: int) -> int | None:
    """Find the first of `hold` points in a row that are at the target."""
    if hold < 1 or len(run) < hold:
        raise DataError(f"run {number} has {len(run)} points; it takes one or more, and at least hold={hold} of them")
    sign = 1 if higher_is_better else -1
    there = [sign * point.value >= sign * target for point in run]
    starts = range(len(run) - hold + 1)
    return next((start for start in starts if all(there[start : start + hold])), None)


def _observed(
    runs: Sequence[Sequence[Point]], places: Sequence[int | None], cost: Cost
) -> tuple[list[float], list[bool]]:
    """Give of each run what was spent until the target, or in all, and whether it was reached."""
    spent = []
    for number, (run, place) in enumerate(zip(runs, places, strict=True)):
        curve = [float(getattr(point, cost)) for point in run]
        if not all(before <= after for before, after in pairwise([0.0, *curve])):
            raise DataError(f"{cost} of run {number} fall along the curve, or begin below 0: give them summed up")
        spent.append(curve[-1 if place is None else place])
    return spent, [place is not None for place in places]


def _summary(spent: list[float], reached: list[bool]) -> Convergence:
    arrived = [each for each, there in zip(spent, reached, strict=True) if there]
    budgets = [each for each, there in zip(spent, reached, strict=True) if not there]
    horizon = min(budgets) if budgets else max(arrived)
    return Convergence(
        runs=len(spent),
        reached=len(arrived),
        share=exact_share(sum(reached), len(reached)),
        median_reached=float(np.median(arrived)) if arrived else None,
        median=survival_median(spent, reached),
        restricted_mean=float(np.mean([min(each, horizon) for each in spent])),
        horizon=horizon,
    )


def survival_median(spent: Sequence[float], reached: Sequence[bool]) -> float | None:
    """Find the smallest cost at which the Kaplan-Meier estimate of "not there yet" is at most a half.

    Ŝ(t) = Π over costs tᵢ ≤ t of (1 − dᵢ / nᵢ), with dᵢ runs that arrive at tᵢ of the nᵢ that were still under way.

    Args:
        spent: By each run until the target, or in all.
        reached: Whether it was.

    Returns:
        None where it never falls that far.

    Example:
        >>> survival_median([5, 7, 9, 4], [True, True, True, False]), survival_median([5, 7, 9], [True, False, False])
        (7.0, None)
    """
    left = 1.0
    for cost in sorted({each for each, there in zip(spent, reached, strict=True) if there}):
        under_way = sum(each >= cost for each in spent)
        arriving = sum(there and each == cost for each, there in zip(spent, reached, strict=True))
        left *= 1 - arriving / under_way
        if left <= 0.5 + 1e-12:
            return float(cost)
    return None
