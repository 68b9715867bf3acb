"""Ways to do the same thing, timed in turns: A B A B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import process_time

import numpy as np

from adaptkit.profiling.latency import no_garbage_collection

Times = dict[str, list[float]]


def turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1, clock: Callable[[], float] = process_time
) -> Times:
    """Run every way once a round, in the same order, and give the seconds that each took in each round.

    The clock is that of the process: what else a busy machine does is not counted, and ratios are taken within a round,
    so that what slows the machine down for a while slows all ways down.

    Example:
        >>> ticks = iter(range(100))
        >>> turns({"a": lambda: None, "b": lambda: None}, rounds=2, clock=lambda: float(next(ticks)))
        {'a': [1.0, 1.0], 'b': [1.0, 1.0]}
    """
    times: Times = {name: [] for name in ways}
    with no_garbage_collection():
        for number in range(-warm_up, rounds):
            for name, way in ways.items():
                started = clock()
                way()
                spent = clock() - started
                if number >= 0:
                    times[name].append(spent)
    return times


def ratio(times: Times, base: str, other: str) -> dict[str, float]:
    """Give how much longer `base` takes than `other`: median and deciles over the rounds.

    Example:
        >>> ratio({"a": [2.0, 4.0], "b": [1.0, 2.0]}, "a", "b")
        {'median': 2.0, 'p10': 2.0, 'p90': 2.0}
    """
    pairs = np.asarray(times[base]) / np.asarray(times[other])
    p10, median, p90 = np.percentile(pairs, [10, 50, 90])
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}
