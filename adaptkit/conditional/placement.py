"""Which of the points of a network it pays to stop at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

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
    sets: Iterable[tuple[int, ...]] | None = None,
) -> tuple[int, ...]:
    """Choose the points with which the mean time is least.

    Args:
        answers: Gives what is answered at some points and at the end, for the seconds until each.
        segments: Seconds of each part of the network that is cut at all points.
        whole: Seconds of the network in one piece.
        costs: Seconds of what is done at each point. Where there are more, those after the last point begin with the
            first again: other things that can be done there.
        max_drop: Limit on the drop in accuracy.
        seed: See `thresholds.choose`.
        sets: Which may be done together, one thing at a point, in order of the points; all points where None.

    Returns:
        At least one of them, in order.
    """
    count = len(segments) - 1
    every = range(len(costs))
    sets = list(sets or (kept for size in every for kept in itertools.combinations(every, size + 1)))
    times = []
    for kept in sets:
        places = [i % count for i in kept]
        done = np.zeros(count)
        done[places] = costs[list(kept)]
        times.append(fastest(answers(kept, joined_seconds(segments, whole, done, places)), max_drop / 2, seed))
    return sets[int(np.argmin(times))]
