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
