"""How long models take on real samples, measured alternately: noise would leave a conditional model at other exits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from adaptkit.loading.batches import Batches
from adaptkit.profiling.latency import no_garbage_collection
from adaptkit.profiling.percentiles import percentiles
from adaptkit.report.schema import Percentiles, Ratio
from adaptkit.runtime.model import AdaptedModel
from adaptkit.runtime.result import Array
from adaptkit.specs import ProfileSpec

_BLOCK = 8
"""Timed calls of one model before it is the next one's turn."""
_PASSES = 5
"""Over the samples at least: a call that the machine interrupted is slow in one or two of them."""
_FEWEST = 5


@dataclass
class SampleTiming:
    """The measured calls of one model.

    Args:
        paths: Names of the ways a sample can take.
        calls: Passes × calls: seconds. The n-th call of all passes, and of all models, had the same samples.
        waited: Passes × samples: seconds until each sample had its answer.
        way: Which way each sample took.
    """

    paths: tuple[str, ...]
    calls: list[list[float]] = field(default_factory=list)
    waited: list[list[float]] = field(default_factory=list)
    way: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> Array:
        """Of each call, the median over the passes: how long its samples take, not how busy the machine was."""
        return np.asarray(np.median(self.calls, axis=0))

    def percentiles(self) -> Percentiles:
        """Give mean, p50, p90, p99 and what lies between them in milliseconds a call."""
        return percentiles(1000 * self.seconds, mean=True)

    def of_way(self, name: str) -> Percentiles | None:
        """Give the same of the samples that took one way, until each had its answer; None where there are none."""
        mine = np.array(self.way) == self.paths.index(name)
        return percentiles(1000 * np.median(self.waited, axis=0)[mine], mean=True) if mine.any() else None


@dataclass(frozen=True)
class SampleComparison:
    """The latency of one model beside the others; keys are such as "t1_b64".

    Args:
        latency_ms: Per call.
        timings: The calls themselves.
    """

    latency_ms: dict[str, Percentiles] = field(default_factory=dict)
    timings: dict[str, SampleTiming] = field(default_factory=dict)


def measure_on_samples(
    paths: Sequence[Path],
    batches: Batches,
    *,
    threads: int = 1,
    batch_size: int = 1,
    repeats: int = 200,
    seconds: float = 5.0,
    seed: int = 0,
) -> list[SampleTiming]:
    """Time models on the same samples: a block of calls of A, one of B, one of A, and so on.

    Samples keep their order inside a block, as frames and caches need; blocks come in a random one, so that a pass that
    does not get to the end still has seen all of the data. An untimed call on the sample before leads into each block.
    All passes are over the same blocks, and each opens the models anew: what a cache has learned is gone.

    Args:
        paths: ONNX files or folders, as `AdaptedModel.load` takes them.
        batches: Normalized samples.
        threads: Threads within an operator.
        batch_size: Samples in a call; where there are fewer, they are given again.
        repeats: Timed calls of each model at least, as far as the time allows.
        seconds: Time limit of all calls together; five calls in each of five passes are made at any rate.
        seed: Of the order of the blocks.

    Raises:
        ModelError: A model cannot be opened.
        DataError: The samples do not fit.
    """
    timings: list[SampleTiming] = []
    starts = _block_starts(batches, batch_size, seed)
    began = perf_counter()
    while len(timings) == 0 or _goes_on(timings[0], repeats, perf_counter() - began > seconds):
        models = [AdaptedModel.load(path, threads) for path in paths]
        timings = timings or [SampleTiming(model.paths) for model in models]
        for timing in timings:
            timing.calls.append([])
            timing.waited.append([])
        for number, start in enumerate(starts):
            block = _block(batches, batch_size, start)
            with no_garbage_collection():
                for model, timing in zip(models, timings, strict=True):
                    _time_block(model, block, timing)
            late = perf_counter() - began > seconds / _PASSES
            if late and len(timings[0].calls) == 1 and len(timings[0].calls[0]) >= _FEWEST:
                starts = starts[: number + 1]
                break
    return timings


def _goes_on(timing: SampleTiming, repeats: int, late: bool) -> bool:
    passes, calls = len(timing.calls), len(timing.calls) * len(timing.calls[0])
    return passes < _PASSES or calls < _FEWEST or (calls < repeats and not late)


def compare_on_samples(paths: Sequence[Path], batches: Batches, profile: ProfileSpec) -> list[SampleComparison]:
    """Measure models at every thread count and batch size of a profile.

    Args:
        paths: ONNX files or folders.
        batches: Normalized samples.
        profile: What to measure, how often, how long.
    """
    found = [SampleComparison() for _ in paths]
    for threads, batch_size in itertools.product(profile.threads, profile.batch_sizes):
        timings = measure_on_samples(
            paths, batches, threads=threads, batch_size=batch_size, repeats=profile.repeats, seconds=profile.seconds
        )
        for side, timing in zip(found, timings, strict=True):
            side.timings[f"t{threads}_b{batch_size}"] = timing
            side.latency_ms[f"t{threads}_b{batch_size}"] = timing.percentiles()
    return found


def ratios_of_means(baseline: SampleComparison, other: SampleComparison) -> dict[str, Ratio]:
    """Give mean time of the baseline over that of another model, at every setting, with quartiles over the blocks.

    Example:
        >>> slow = SampleComparison(timings={"t1_b1": SampleTiming((), [[2.0, 4.0], [3.0, 4.0], [3.0, 99.0]])})
        >>> fast = SampleComparison(timings={"t1_b1": SampleTiming((), [[1.0, 1.0], [1.0, 3.0], [1.0, 2.5]])})
        >>> ratios_of_means(slow, fast)["t1_b1"]
        Ratio(median=2.0, low=2.0, high=2.0)
    """
    found = {}
    for key, timing in other.timings.items():
        before, after = baseline.timings[key].seconds, timing.seconds
        edges = np.arange(0, len(after), _BLOCK)
        low, high = np.percentile(np.add.reduceat(before, edges) / np.add.reduceat(after, edges), [25, 75])
        found[key] = Ratio(median=float(before.sum() / after.sum()), low=float(low), high=float(high))
    return found


def _block_starts(batches: Batches, batch_size: int, seed: int) -> list[int]:
    whole = max(1, batches.num_samples // batch_size)
    starts: list[int] = np.random.default_rng(seed).permutation(np.arange(0, whole, _BLOCK)).tolist()
    return starts


def _block(batches: Batches, batch_size: int, start: int) -> list[Array]:
    """Give the batches of a block, behind the one that leads into it."""
    sized, whole = batches.with_batch_size(batch_size), max(1, batches.num_samples // batch_size)
    before = next(sized.epoch(0, (start - 1) % whole))
    chosen = itertools.islice(sized.epoch(0, start), min(_BLOCK, whole - start))
    return [np.resize(x.numpy(), (batch_size, *x.shape[1:])) for x, _ in (before, *chosen)]


def _time_block(model: AdaptedModel, block: list[Array], timing: SampleTiming) -> None:
    """Run a block; the call that leads into it finds the processor's caches full of another model."""
    for number, x in enumerate([model.expected_input(x) for x in block]):
        started = perf_counter()
        result = model(x)
        spent = perf_counter() - started
        if number:
            timing.calls[-1].append(spent)
            timing.waited[-1] += (result.waited + (spent - result.waited.max())).tolist()
            timing.way += result.path.tolist() if len(timing.calls) == 1 else []
