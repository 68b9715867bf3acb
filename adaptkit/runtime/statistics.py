"""Which ways samples took through a model, and how long they waited."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from adaptkit.runtime.result import Result

_REMEMBERED = 10_000


@dataclass(frozen=True)
class PathStatistics:
    """One way through a model.

    Args:
        name: Of the way.
        samples: How many took it.
        share: Of all samples.
        p50_ms: Half of the last ten thousand of them waited no longer.
        p90_ms: Nine of ten.
        p99_ms: Ninety-nine of a hundred.
    """

    name: str
    samples: int
    share: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


class Counter:
    """Adds up results; may be used from many threads.

    Args:
        paths: Names of the ways.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths, self._lock = paths, threading.Lock()
        self._samples = [0] * len(paths)
        self._waited: list[deque[float]] = [deque(maxlen=_REMEMBERED) for _ in paths]

    def add(self, result: Result) -> None:
        """Count the samples of one run."""
        with self._lock:
            for path, waited in zip(result.path.tolist(), result.waited.tolist(), strict=True):
                self._samples[path] += 1
                self._waited[path].append(waited)

    def read(self) -> tuple[PathStatistics, ...]:
        """Give the figures of every way that was taken."""
        with self._lock:
            samples = list(self._samples)
            waited = [np.array(times) for times in self._waited]
        total = sum(samples)
        return tuple(
            PathStatistics(name, count, count / total, *(1000 * np.percentile(times, (50, 90, 99))).tolist())
            for name, count, times in zip(self._paths, samples, waited, strict=True)
            if count
        )
