"""Runs a network over video: what did not change since the last frame is not made again."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from adaptkit.errors import DataError
from adaptkit.runtime.fits import check_fits
from adaptkit.runtime.frame_manifest import FramePlan, FramesManifest
from adaptkit.runtime.kept_maps import KeptMap, OpenSegment, Tiles
from adaptkit.runtime.result import Array, Result
from adaptkit.runtime.session import open_session

UNCHANGED, PARTIAL, WHOLE = range(3)
_PATIENCE = 3
"""So many frames in a row may change too much before the next ones are made whole without looking."""
_PATHS = ("unchanged", "partial", "whole")


class OpenNetwork:
    """The sessions of a network over video; holds nothing of any frame.

    Args:
        whole: The whole network.
        segments: In order.
        rest: What comes behind them.
        plan: How they work together.
    """

    def __init__(
        self,
        whole: ort.InferenceSession,
        segments: Sequence[ort.InferenceSession],
        rest: ort.InferenceSession,
        plan: FramePlan,
    ) -> None:
        self.whole, self._sessions, self._rest, self.plan = whole, segments, rest, plan
        self.segments = tuple(OpenSegment(*pair) for pair in zip(segments, plan.segments, strict=True))
        self._takes, self._gives = whole.get_inputs()[0].name, whole.get_outputs()[0].name

    def replan(self, plan: FramePlan) -> OpenNetwork:
        """Run the same files in another way."""
        return OpenNetwork(self.whole, self._sessions, self._rest, plan)

    def fresh_maps(self) -> list[KeptMap]:
        """Make room for what every part reads."""
        reads = zip(self.plan.reads, self.plan.tolerances, strict=True)
        return [KeptMap(value.shape, value.dtype, tolerance) for value, tolerance in reads]

    def answer_whole(self, frame: Array) -> Array:
        """Run the whole network on C × H × W."""
        given: Array = self.whole.run([self._gives], {self._takes: frame[None]})[0]
        return given

    def answer_rest(self, last: Array) -> Array:
        """Run what comes behind the segments."""
        given: Array = self._rest.run([self._gives], {self.plan.reads[-1].name: last[None]})[0]
        return given


class Stream:
    """The frames of one camera, in order; threads that share it wait for each other.

    A frame that changed in too many places is made whole. After several of them in a row the stream does not even look
    for changes for a while, which doubles with each, so that a moving camera costs next to nothing.

    Args:
        network: May be shared by streams.
    """

    def __init__(self, network: OpenNetwork) -> None:
        self._network, self._lock = network, threading.Lock()
        self._maps: list[KeptMap] = []
        self._answer: Array = np.empty(0)
        self._age = self._wait = self._failures = 0
        self._valid = False

    @property
    def kept_frame(self) -> Array | None:
        """The frame that the last answer is exact for, where nothing but the frame has a tau; None before there is."""
        return self._maps[0].values[None].copy() if self._valid else None

    def __call__(self, x: Array) -> Result:
        """Run consecutive frames, N × C × H × W.

        Raises:
            DataError: The frames have another size, there is none, or the network answers with NaN or infinity.
        """
        shape = self._network.plan.frame.shape
        if x.shape[1:] != shape or not len(x):
            size = " × ".join(map(str, shape))
            raise DataError(f"the stream takes one frame or more of {size}; got shape {list(x.shape)}")
        started = time.perf_counter()
        answers, path, waited = [], np.zeros(len(x), np.int64), np.zeros(len(x))
        seconds: dict[str, float] = {}
        with self._lock:
            for number, frame in enumerate(x):
                before = time.perf_counter()
                answer, path[number] = self._frame(frame)
                answers.append(answer)
                now = time.perf_counter()
                name, waited[number] = _PATHS[path[number]], now - started
                seconds[name] = seconds.get(name, 0.0) + now - before
        return Result(np.concatenate(answers), path, seconds, waited)

    def _frame(self, frame: Array) -> tuple[Array, int]:
        try:
            answer, path = self._answer_of(frame)
        except BaseException:
            self._valid = False  # the maps may be of different frames
            raise
        if path != UNCHANGED and not np.isfinite(answer).all():
            self._valid = False
            raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")
        self._answer = answer
        return answer, path

    def _answer_of(self, frame: Array) -> tuple[Array, int]:
        if self._wait:
            self._wait -= 1
            return self._network.answer_whole(frame), WHOLE
        self._age += 1
        if not self._valid or self._age >= self._network.plan.refresh_every:
            return self._capture(frame), WHOLE
        first = self._maps[0]
        places = first.changed(frame, first.values)
        if np.count_nonzero(places) <= first.tolerance.few:
            self._failures //= 2
            return self._answer, UNCHANGED
        if not self._network.segments:
            return self._give_up(frame), WHOLE
        tiles = self._network.segments[0].tiles(places)
        if len(tiles[0]) > self._network.plan.most:
            return self._give_up(frame), WHOLE
        self._failures //= 2
        np.copyto(first.values, frame, where=places)
        return self._make_changed(tiles), PARTIAL

    def _make_changed(self, tiles: Tiles) -> Array:
        """Bring map after map up to date, as far as enough of it changes."""
        segments = self._network.segments
        for segment, following, source, target in zip(
            segments, (*segments[1:], None), self._maps, self._maps[1:], strict=False
        ):
            places = target.due(segment.advance(source, target, tiles))
            if places is None:
                return self._answer
            if following is not None:
                tiles = following.tiles(places)
        return self._network.answer_rest(self._maps[-1].values)

    def _capture(self, frame: Array) -> Array:
        """Run the whole network part by part, and keep what every part reads."""
        self._maps = self._maps or self._network.fresh_maps()
        self._maps[0].fill(frame)
        for segment, source, target in zip(self._network.segments, self._maps, self._maps[1:], strict=False):
            target.fill(segment.make_all(source.values))
        self._valid, self._age = True, 0
        return self._network.answer_rest(self._maps[-1].values)

    def _give_up(self, frame: Array) -> Array:
        self._failures += 1
        doublings = max(0, self._failures - _PATIENCE)
        self._wait = min(2 ** min(doublings, 30) - 1, self._network.plan.longest_wait)
        if self._wait == 0:
            return self._capture(frame)
        self._valid = False
        return self._network.answer_whole(frame)


class FrameCache:
    """A network over video, with a memory for every stream; what `AdaptedModel` runs is one of them.

    Args:
        network: What runs.
    """

    paths = _PATHS

    def __init__(self, network: OpenNetwork) -> None:
        self._network, self._lock = network, threading.Lock()
        self._streams: dict[Hashable, Stream] = {}
        self._default = Stream(network)

    @classmethod
    def load(cls, folder: Path, manifest: FramesManifest, threads: int | None, inside: object) -> FrameCache:
        """Open the parts of a folder."""
        del inside
        plan = manifest.plan
        segments = [open_session(folder / part.file, threads) for part in plan.segments]
        whole = open_session(folder / plan.whole, threads)
        rest = open_session(folder / plan.rest, threads) if segments else whole
        answer = whole.get_outputs()[0].name
        check_fits(whole, folder / plan.whole, plan.frame, (answer,))
        check_fits(rest, folder / plan.rest, plan.reads[-1], (answer,))
        for session, part in zip(segments, plan.segments, strict=True):
            check_fits(session, folder / part.file, part.takes, (part.gives,))
        return cls(OpenNetwork(whole, segments, rest, plan))

    @property
    def first(self) -> ort.InferenceSession:
        """The whole network."""
        return self._network.whole

    def stream(self, key: Hashable) -> Stream:
        """Give the stream of a camera, made where there is none; keeps its maps until it is forgotten."""
        with self._lock:
            return self._streams.setdefault(key, Stream(self._network))

    def forget(self, key: Hashable) -> None:
        """Drop the stream of a camera, where there is one."""
        with self._lock:
            self._streams.pop(key, None)

    def __call__(self, x: Array) -> Result:
        """Run consecutive frames of the stream without a name."""
        return self._default(x)
