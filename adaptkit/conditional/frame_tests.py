"""How often the answers of a network over video are those of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from adaptkit.metrics.bounds import drop_bound
from adaptkit.runtime.frame_cache import UNCHANGED, OpenNetwork, Stream
from adaptkit.runtime.frame_manifest import FramePlan

Array: TypeAlias = np.ndarray[Any, Any]
_PATHS = 3


@dataclass(frozen=True)
class Outcome:
    """What tolerances do to some frames.

    Args:
        shares: Of the frames that are unchanged, made in parts, and made whole.
        differing: Frames whose answer counts as another than the whole network's.
        frames: All of them.
        bound: The share of such frames is at most this, at the confidence asked for.
        error: Greatest ‖y' − y‖ / ‖y‖ there was.
        seconds: Mean time of a frame, without those that are made whole at the start.
    """

    shares: tuple[float, float, float]
    differing: int
    frames: int
    bound: float
    error: float
    seconds: float


def follow(
    network: OpenNetwork, frames: Array, full: Array, confidence: float = 0.95, max_error: float | None = None
) -> Outcome:
    """Send frames through a stream, and compare its answers with the whole network's.

    Args:
        network: To run.
        frames: N × C × H × W, in order.
        full: N × classes, what the whole network answers.
        confidence: How often the bound must hold.
        max_error: Beyond it an answer differs even where its largest class is the same.
    """
    stream = Stream(network)
    results = [stream(frame[None]) for frame in frames]
    answers = np.concatenate([result.logits for result in results])
    path = np.concatenate([result.path for result in results])
    seconds = np.array([result.waited[0] for result in results])
    return _outcome(answers, full, path, float(seconds[1:].mean()), confidence, max_error)


def replay(
    plan: FramePlan,
    frames: Array,
    full: Array,
    seconds: float,
    confidence: float = 0.95,
    max_error: float | None = None,
) -> Outcome:
    """Say what a plan without segments does, from the answers the whole network gives: it does not run again.

    Args:
        plan: Without segments.
        frames: N × C × H × W, in order.
        full: N × classes.
        seconds: Of the whole network, for a frame.
        confidence: How often the bound must hold.
        max_error: As in `follow`.
    """
    recorded = _Recorded(plan)
    stream = Stream(recorded)
    answers, path, looking = [], [], []
    for frame, answer in zip(frames, full, strict=True):
        recorded.answer = answer[None]
        result = stream(frame[None])
        answers.append(result.logits)
        path.append(int(result.path[0]))
        looking.append(float(result.waited[0]))
    spent = median(looking) + seconds * sum(step != UNCHANGED for step in path) / len(path)
    return _outcome(np.concatenate(answers), full, np.array(path), spent, confidence, max_error)


class _Recorded(OpenNetwork):
    """A network without segments whose answers are known."""

    def __init__(self, plan: FramePlan) -> None:
        self.plan, self.segments, self.answer = plan, (), np.empty(0)

    def answer_whole(self, frame: Array) -> Array:
        del frame
        return self.answer

    def answer_rest(self, last: Array) -> Array:
        del last
        return self.answer


def _outcome(
    answers: Array, full: Array, path: Array, seconds: float, confidence: float, max_error: float | None
) -> Outcome:
    rows, wanted = answers.reshape(len(answers), -1), full.reshape(len(full), -1)
    errors = np.linalg.norm(rows - wanted, axis=1) / np.maximum(
        np.linalg.norm(wanted, axis=1), np.finfo(np.float32).tiny
    )
    differs = answers.argmax(1).reshape(len(rows), -1) != full.argmax(1).reshape(len(rows), -1)
    wrong = differs.any(1) | (errors > (np.inf if max_error is None else max_error))
    counts = np.bincount(path, minlength=_PATHS) / len(path)
    bound = drop_bound(int(wrong.sum()), 0, len(wrong), confidence)
    shares = float(counts[0]), float(counts[1]), float(counts[2])
    return Outcome(shares, int(wrong.sum()), len(wrong), bound, float(errors.max()), seconds)


def in_order(found: Sequence[Outcome], most: float) -> list[int]:
    """Order candidates from the most careful to the fastest, without those that another one beats in both.

    Where as few answers differ, the one that is off by less is the more careful.

    Args:
        found: What each does to the frames that order them.
        most: Share of the frames that may differ there.

    Returns:
        Places in `found`.
    """
    able = [i for i, outcome in enumerate(found) if outcome.differing <= most * outcome.frames]
    able.sort(key=lambda i: (found[i].differing, found[i].error, found[i].seconds))
    chain: list[int] = []
    for i in able:
        if not chain or found[i].seconds < found[chain[-1]].seconds:
            chain.append(i)
    return chain
