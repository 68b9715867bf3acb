"""How long ONNX Runtime takes for a call, files measured alternately."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort

from adaptkit.profiling.inputs import Feeds, random_feeds
from adaptkit.profiling.percentiles import percentiles
from adaptkit.report.schema import Percentiles, Ratio
from adaptkit.runtime.session import RUN_ERRORS, cannot_run, open_session
from adaptkit.specs import ProfileSpec

_FEWEST = 5


@dataclass(frozen=True)
class Timing:
    """Every measured call of one file.

    Args:
        path: The file.
        threads: Threads within an operator.
        batch_size: Samples in a call.
        samples_ns: Nanoseconds of each call, in order; the n-th of all files were measured side by side.
        load_average: Of the machine over the last minute, when measuring began; NaN where the system has none.
    """

    path: Path
    threads: int
    batch_size: int
    samples_ns: tuple[int, ...]
    load_average: float

    def percentiles(self) -> Percentiles:
        """Give p50, p90, p99 and what lies between them in milliseconds a call."""
        return percentiles(np.asarray(self.samples_ns) / 1e6, mean=False)


@dataclass(frozen=True)
class Comparison:
    """The latency of one file beside the first one; keys are such as "t1_b64": one thread, batch 64.

    Args:
        latency_ms: Per call.
        speedup: Time of the first file over time of this one, pair by pair.
        load_average: The highest of the measurements.
    """

    latency_ms: dict[str, Percentiles]
    speedup: dict[str, Ratio]
    load_average: float


def measure(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    batch_size: int = 1,
    warmup: int = 20,
    repeats: int = 200,
    seconds: float = 5.0,
    seed: int = 0,
) -> list[Timing]:
    """Time files on ONNX Runtime: A B A B …, so that a machine that slows down slows them all.

    Each timed call follows an untimed one of the same file. Threads sleep instead of spinning, the garbage collector is
    off, inputs are normal random numbers.

    Args:
        paths: ONNX files whose inputs are free in the first dimension only.
        threads: Threads within an operator.
        batch_size: Samples in a call.
        warmup: Untimed calls of each file first (memory is allocated in them); a quarter of `seconds` at most.
        repeats: Timed calls of each file.
        seconds: Time limit of the timed calls of all files together; five calls are made at any rate.
        seed: Of the inputs.

    Raises:
        ModelError: A file cannot be opened, or does not take this batch size.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    runs = [_run(path, threads, batch_size, seed) for path in paths]
    samples: list[list[int]] = [[] for _ in runs]
    with no_garbage_collection():
        _warm_up(runs, warmup, seconds / 4)
        for _ in _for_a_while(repeats, seconds, fewest=min(_FEWEST, repeats)):
            for (session, feeds), times in zip(runs, samples, strict=True):
                session.run(None, feeds)  # a server that runs one model finds its caches full of it, not of the other
                start = perf_counter_ns()
                session.run(None, feeds)
                times.append(perf_counter_ns() - start)
    return [Timing(path, threads, batch_size, tuple(times), load) for path, times in zip(paths, samples, strict=True)]


def _warm_up(runs: Sequence[tuple[ort.InferenceSession, Feeds]], times: int, seconds: float) -> None:
    try:
        for _ in _for_a_while(times, seconds, fewest=1):
            for session, feeds in runs:
                session.run(None, feeds)
    except RUN_ERRORS as error:
        raise cannot_run(error) from error


def compare(paths: Sequence[Path], profile: ProfileSpec, seed: int = 0) -> list[Comparison]:
    """Measure files at every thread count and batch size of a profile; the first file is the baseline.

    Args:
        paths: The baseline, then the others.
        profile: What to measure, how often, how long.
        seed: Of the inputs.
    """
    found = [Comparison({}, {}, 0.0) for _ in paths]
    for threads in profile.threads:
        for batch_size in profile.batch_sizes:
            timings = measure(
                paths,
                threads=threads,
                batch_size=batch_size,
                warmup=profile.warmup,
                repeats=profile.repeats,
                seconds=profile.seconds,
                seed=seed,
            )
            key = f"t{threads}_b{batch_size}"
            for index, timing in enumerate(timings):
                found[index].latency_ms[key] = timing.percentiles()
                found[index].speedup[key] = speedup(timings[0], timing)
    load = timings[0].load_average
    return [Comparison(item.latency_ms, item.speedup, load) for item in found]


def speedup(baseline: Timing, timing: Timing) -> Ratio:
    """Give the ratio of times, baseline over this one: median and quartiles over the pairs measured side by side.

    Example:
        >>> slow = Timing(Path("a.onnx"), 1, 1, (20, 40, 30), 0.0)
        >>> fast = Timing(Path("b.onnx"), 1, 1, (10, 10, 10), 0.0)
        >>> speedup(slow, fast)
        Ratio(median=3.0, low=2.5, high=3.5)
    """
    pairs = np.asarray(baseline.samples_ns, np.float64) / np.asarray(timing.samples_ns, np.float64)
    low, median, high = np.percentile(pairs, [25, 50, 75])
    return Ratio(median=float(median), low=float(low), high=float(high))


def _run(path: Path, threads: int, batch_size: int, seed: int) -> tuple[ort.InferenceSession, Feeds]:
    session = open_session(path, threads)
    return session, random_feeds(session, batch_size, seed, path.name)


def _for_a_while(times: int, seconds: float, fewest: int) -> Iterator[None]:
    end = perf_counter_ns() + int(seconds * 1e9)
    for done in range(times):
        if done >= fewest and perf_counter_ns() > end:
            return
        yield


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's garbage collector off for as long as the context lasts."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
