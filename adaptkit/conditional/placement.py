"""Which of the points of a network it pays to stop at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from adaptkit.conditional.stage_times import joined_seconds
from adaptkit.conditional.thresholds import Answers, Array, fastest


def fastest_points(
    answers: Callable[[Sequence[int], Array], Answers],
    segments: Array,
    whole: float,
    costs: Array,
    max_drop: float,
    seed: int,
) -> tuple[int, ...]:
    """Choose the points with which the mean time is least.

    Args:
        answers: Gives what is answered at some points and at the end, for the seconds until each.
        segments: Seconds of each part of the network that is cut at all points.
        whole: Seconds of the network in one piece.
        costs: Seconds of what is done at each point.
        max_drop: Limit on the drop in accuracy.
        seed: See `thresholds.choose`.

    Returns:
        At least one of them, in order.
    """
    every = range(len(costs))
    sets = [kept for count in range(1, len(costs) + 1) for kept in itertools.combinations(every, count)]
    times = [fastest(answers(kept, joined_seconds(segments, whole, costs, kept)), max_drop / 2, seed) for kept in sets]
    return sets[int(np.argmin(times))]
