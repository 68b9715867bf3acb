"""From a network and frames of a video to parts and tolerances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from time import perf_counter

import numpy as np
import onnx

from adaptkit.conditional.frame_cache import CachedFrames, FrameCache
from adaptkit.conditional.frame_parts import EXACT, Parts, in_parts
from adaptkit.conditional.frame_tests import Array, Outcome, follow, in_order, replay
from adaptkit.conditional.frame_times import with_limits
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import DataError, TargetError
from adaptkit.export.reach import map_cuts
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.bounds import drop_bound
from adaptkit.runtime.frame_cache import OpenNetwork
from adaptkit.runtime.frame_manifest import Tolerance
from adaptkit.technique import Context

_TAUS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Standard deviations of what a part reads."""
_FEW = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Shares of its places."""
_INSIDE = (0.0, 0.5, 1.0)
"""Tolerances of inner maps, as parts of the frame's, from the most careful on."""
_SIDES = (32, 64)
_ORDERING = 0.3
_TRIAL = 32
"""Frames that plans are timed on."""
_WORTH = 0.97


def find_plan(settings: FrameCache, inner: PlainArtifact, context: Context, threads: int) -> CachedFrames:
    """Find how large changes need no answer, and whether frames that do are made in parts.

    Three tenths of the frames, the first ones, order the candidates; the others test them from the most careful one on
    until one fails (Angelopoulos et al. 2021, "Learn then test", section 3). With parts two families are tested,
    tolerances of the frame and those of inner maps, each at half of the risk.

    Raises:
        DataError: There are no frames.
        TargetError: Nothing is gained within the limit.
    """
    assert context.validation is not None
    frames = _frames(context.validation)
    proto = onnx.shape_inference.infer_shapes(inner.proto)
    search = _Search(settings, proto, frames, threads)
    parts, outcome = search.skip_frames()
    if settings.parts and (found := search.in_parts(parts)) is not None and found[1].seconds < outcome.seconds:
        parts, outcome = found
    if outcome.seconds > _WORTH * search.seconds:
        raise TargetError(_refusal(search, outcome, settings))
    context.notes.append(_summary(search, parts, outcome, settings))
    return CachedFrames(parts, outcome, inner.network)


class _Search:
    """What is known of a network and its frames."""

    def __init__(self, settings: FrameCache, proto: onnx.ModelProto, frames: Array, threads: int) -> None:
        self.settings, self.proto, self.frames, self.threads = settings, proto, frames, threads
        families = 2 if settings.parts else 1
        self.confidence = 1 - (1 - settings.confidence) / families
        whole = self._cut((), 0).open(threads)
        times, answers = [], []
        for frame in frames:
            started = perf_counter()
            answers.append(whole.answer_whole(frame))
            times.append(perf_counter() - started)
        self.full, self.seconds = np.concatenate(answers), median(times)
        self.ordering = max(1, round(_ORDERING * len(frames)))
        self.spread = float(frames[: self.ordering].std())
        # What parts are tested with is chosen on the first frames alone: their bound knows nothing of the other family.
        self.careful = EXACT

    def skip_frames(self) -> tuple[Parts, Outcome]:
        """Find the tolerance of the frame with which whole frames are skipped; it may be none."""
        plain = self._cut((), 0)
        places = plain.plan.frame.shape[1] * plain.plan.frame.shape[2]
        candidates = [Tolerance(tau=tau * self.spread, few=round(few * places)) for tau in _TAUS for few in _FEW]
        first, last = slice(None, self.ordering), slice(self.ordering, None)
        found = [self._replay(plain, candidate, first) for candidate in candidates]
        order = in_order(found, self.settings.max_disagreement)
        self.careful = candidates[order[len(order) // 2]] if order else EXACT
        best, outcome = plain, self._replay(plain, EXACT, last)
        for place in order:
            tested = self._replay(plain, candidates[place], last)
            if tested.bound > self.settings.max_disagreement:
                break
            best, outcome = _tolerating(plain, [candidates[place]]), tested
        return best, outcome

    def in_parts(self, plain: Parts) -> tuple[Parts, Outcome] | None:
        """Find parts that are faster than whole frames, and their tolerances; None where there are none."""
        trial = self.frames[:_TRIAL], self.full[:_TRIAL]
        least = _WORTH * self._timed(plain.open(self.threads), *trial)
        best: Parts | None = None
        cuts = map_cuts(self.proto)
        for side in _SIDES:
            parts = with_limits(self._cut(cuts, side), self.frames[0], self.threads)
            if parts is None:
                continue
            parts = _tolerating(parts, [self.careful, *[EXACT] * len(parts.segments)])
            seconds = self._timed(parts.open(self.threads), *trial)
            if seconds < least:
                best, least = parts, seconds
        return None if best is None else self._inside(best)

    def _inside(self, parts: Parts) -> tuple[Parts, Outcome] | None:
        """Raise the tolerances of inner maps as far as they hold."""
        network, frame = parts.open(self.threads), self.careful
        spreads = _spreads(network, self.frames[: self.ordering : max(1, self.ordering // 8)])
        places = [value.shape[1] * value.shape[2] for value in parts.plan.reads]
        found: tuple[Parts, Outcome] | None = None
        for scale in _INSIDE:
            inner = [
                Tolerance(
                    tau=scale * frame.tau / self.spread * spread, few=round(scale * frame.few / places[0] * count)
                )
                for spread, count in zip(spreads[1:], places[1:], strict=True)
            ]
            candidate = _tolerating(parts, [frame, *inner])
            tested = follow(
                network.replan(candidate.plan),
                self.frames[self.ordering :],
                self.full[self.ordering :],
                self.confidence,
                self.settings.max_error,
            )
            if tested.bound > self.settings.max_disagreement:
                break
            if found is None or tested.seconds < found[1].seconds:
                found = candidate, tested
        return found

    def _cut(self, cuts: Sequence[str], side: int) -> Parts:
        return in_parts(self.proto, cuts, side, self.settings.refresh_every, self.settings.longest_wait)

    def _replay(self, plain: Parts, tolerance: Tolerance, rows: slice) -> Outcome:
        plan = plain.plan.tolerating([tolerance])
        return replay(plan, self.frames[rows], self.full[rows], self.seconds, self.confidence, self.settings.max_error)

    def _timed(self, network: OpenNetwork, frames: Array, full: Array) -> float:
        return follow(network, frames, full).seconds


def _tolerating(parts: Parts, tolerances: Sequence[Tolerance]) -> Parts:
    return dataclasses.replace(parts, plan=parts.plan.tolerating(tolerances))


def _spreads(network: OpenNetwork, frames: Array) -> list[float]:
    """Give the standard deviation of what every part reads, the mean over some frames."""
    found = []
    for frame in frames:
        values, of_frame = frame, [float(frame.std())]
        for segment in network.segments:
            values = segment.make_all(values)
            of_frame.append(float(values.std()))
        found.append(of_frame)
    means: list[float] = np.mean(found, axis=0).tolist()
    return means


def _frames(source: BatchSource) -> Array:
    batches = [x.numpy() for x, _ in as_batches(source)]
    if not batches or batches[0].ndim != 4 or sum(map(len, batches)) < 2:
        raise DataError("frame_cache needs two consecutive frames or more, N × C × H × W, as validation data")
    return np.ascontiguousarray(np.concatenate(batches), np.float32)


def _summary(search: _Search, parts: Parts, outcome: Outcome, settings: FrameCache) -> str:
    unchanged, partial, whole = outcome.shares
    how = f", {100 * partial:.1f} % made in {len(parts.segments) + 1} parts" if parts.segments else ""
    tolerance = parts.plan.tolerances[0]
    return (
        f"{100 * unchanged:.1f} % of {outcome.frames} validation frames were unchanged{how} and {100 * whole:.1f} % "
        f"made whole; {outcome.differing} answers were others than the whole network's: at most "
        f"{100 * outcome.bound:.2f} % with {100 * settings.confidence:.0f} % confidence, the outputs off by at most "
        f"{outcome.error:.3f} of their length. An answer is for a frame that differs by more than {tolerance.tau:.3g} "
        f"in at most {tolerance.few} places. {1e3 * outcome.seconds:.2f} ms a frame, {1e3 * search.seconds:.2f} whole"
    )


def _refusal(search: _Search, outcome: Outcome, settings: FrameCache) -> str:
    floor = drop_bound(0, 0, outcome.frames, search.confidence)
    why = (
        f"{outcome.frames} frames alone leave a bound of {100 * floor:.2f} %: give more"
        if floor > settings.max_disagreement
        else "the frames change too much, or the network is too small: allow more, or leave frame_cache out"
    )
    return (
        f"frame_cache gains nothing with at most {100 * settings.max_disagreement:.2f} % of other answers at "
        f"{100 * settings.confidence:.0f} % confidence ({1e3 * outcome.seconds:.2f} ms a frame, "
        f"{1e3 * search.seconds:.2f} ms whole): {why}"
    )
