"""How long the stages of an early exit take, one after the other as they run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter

import numpy as np
import onnx

from adaptkit.conditional.thresholds import Array
from adaptkit.runtime.session import open_session


def stage_seconds(stages: Sequence[onnx.ModelProto], x: Array, threads: int = 1, repeats: int = 100) -> Array:
    """Measure each stage, head and score included, in turns.

    Args:
        stages: From `export.staged.make_stages`.
        x: The input of the first.
        threads: Threads within an operator.
        repeats: Turns, after a fifth as many for warming up.

    Returns:
        Seconds, the median over the turns.
    """
    sessions = [open_session(stage.SerializeToString(), threads) for stage in stages]
    names = [session.get_inputs()[0].name for session in sessions]
    given = [x]
    for session, name, following in zip(sessions, names, names[1:], strict=False):
        given.append(session.run([following], {name: given[-1]})[0])
    feeds = [{name: value} for name, value in zip(names, given, strict=True)]
    taken: list[list[float]] = [[] for _ in sessions]
    for _ in range(repeats + repeats // 5):
        for session, feed, times in zip(sessions, feeds, taken, strict=True):
            started = perf_counter()
            session.run(None, feed)
            times.append(perf_counter() - started)
    return np.array([median(times[-repeats:]) for times in taken])


def joined_seconds(segments: Array, whole: float, costs: Array, kept: Sequence[int]) -> Array:
    """Say when each way out of a network is reached that is cut at some of its points only.

    A cut takes time of its own, (Σ segments − whole) / cuts: a session more, and values that leave the layout and the
    type they are computed in.

    Args:
        segments: Seconds of each part of the network that is cut at all points.
        whole: Seconds of the network in one piece.
        costs: Seconds of what is done at each point.
        kept: The points it is cut at, in order.

    Returns:
        Seconds from the start to each of them, and to the end.

    Example:
        >>> joined_seconds(np.array([2.0, 2.0, 3.0]), 5.0, np.array([0.5, 0.25]), (1,)).tolist()
        [3.25, 6.25]
    """
    cut = max(0.0, (float(segments.sum()) - whole) / max(1, len(costs)))
    end, reached, start = 0.0, [], 0
    for point in (*kept, len(costs)):
        end += float(segments[start : point + 1].sum()) - cut * (point - start)
        end += float(costs[point]) if point < len(costs) else 0.0
        reached.append(end)
        start = point + 1
    return np.array(reached)
