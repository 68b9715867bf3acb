"""How long the segments of a network over video take, by the number of their tiles."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np

from adaptkit.conditional.frame_parts import Parts, shortened
from adaptkit.runtime.frame_cache import OpenNetwork, Stream
from adaptkit.runtime.frame_manifest import FramePlan
from adaptkit.runtime.kept_maps import KeptMap, OpenSegment, Tiles
from adaptkit.runtime.result import Array

_FEWEST = 0.1
"""A segment that must be made whole from so small a share of its tiles on is left to the rest."""
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
_GAIN = 0.9
_REPEATS = 5


def with_limits(parts: Parts, frame: Array, threads: int = 1) -> Parts | None:
    """Measure from how many tiles on a segment, and the frame, is faster whole; leave out segments that do not pay.

    Args:
        parts: From `frame_parts.in_parts`.
        frame: C × H × W.
        threads: Within an operator.

    Returns:
        None where no segment pays.
    """
    if not parts.segments:
        return None
    network = parts.open(threads)
    maps = network.fresh_maps()
    maps[0].fill(frame)
    limits = []
    for segment, source, target in zip(network.segments, maps, maps[1:], strict=False):
        target.fill(segment.make_all(source.values))
        limits.append(_limit(segment, source, target))
        if limits[-1] < _FEWEST * segment.settings.most:
            limits.pop()
            break
    if not limits:
        return None
    parts = shortened(parts, limits)
    return dataclasses.replace(parts, plan=_frame_limit(parts.open(threads), frame))


def _limit(segment: OpenSegment, source: KeptMap, target: KeptMap) -> int:
    """Give the number of tiles that takes as long as the whole map."""
    every = segment.settings.most
    few, many = max(1, every // 16), max(2, every // 4)
    whole, short, long = _seconds(
        lambda: target.take(segment.make_all(source.values)),
        lambda: segment.advance(source, target, _some(segment, few)),
        lambda: segment.advance(source, target, _some(segment, many)),
    )
    slope = max(long - short, 1e-9) / max(many - few, 1)
    return int(np.clip(few + (whole - short) / slope, 0, every))


def _some(segment: OpenSegment, count: int) -> Tiles:
    """Choose tiles all over the map."""
    rows, columns = (size // segment.settings.tile for size in segment.settings.gives.shape[1:])
    chosen = np.linspace(0, rows * columns - 1, count).astype(int)
    return chosen // columns, chosen % columns


def _frame_limit(network: OpenNetwork, frame: Array) -> FramePlan:
    """Find how many tiles may change before the whole frame is faster: frames are timed that change all over."""
    settings = network.plan.segments[0]
    side = settings.tile * settings.stride
    rows, columns = (size // side for size in network.plan.frame.shape[1:])
    half = max(1, side // 2)
    order = np.random.default_rng(0).permutation(rows * columns)
    plan = network.plan
    for share in _SHARES:
        stream = Stream(network)
        stream(frame[None])
        other = frame.copy()
        for tile in order[: max(1, round(share * len(order)))]:
            row, column = side * (tile // columns), side * (tile % columns)
            other[:, row : row + half, column : column + half] += 1
        turns = itertools.cycle([other, frame])
        whole, made = _seconds(partial(network.answer_whole, frame), partial(_next_frame, stream, turns))
        if made > _GAIN * whole:
            break
        tiles = network.segments[0].tiles((frame != other).any(axis=0))
        plan = network.plan.model_copy(update={"most": len(tiles[0])})
    return plan if plan is not network.plan else network.plan.model_copy(update={"most": 0})


def _next_frame(stream: Stream, turns: Iterator[Array]) -> None:
    stream(next(turns)[None])


def _seconds(*calls: Callable[[], object]) -> list[float]:
    """Time calls in turns: the median of each."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(_REPEATS):
        for call, times in zip(calls, taken, strict=True):
            started = perf_counter()
            call()
            times.append(perf_counter() - started)
    return [median(times) for times in taken]
