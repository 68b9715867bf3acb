"""Answers of a network that are kept as it runs, by what it made of an input on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from adaptkit.runtime.cache_index import ExactIndex
from adaptkit.runtime.cache_order import Eviction
from adaptkit.runtime.cache_store import Store, confidence
from adaptkit.runtime.manifest import Capacity, Part, Positive
from adaptkit.runtime.result import Array
from adaptkit.runtime.result_cache import AnswerForm


class Entries(Part):
    """What is kept at the end of a stage: nothing when the model is opened.

    Args:
        key: Name of the stage's output that is compared.
        dimensions: Of a key, a unit vector.
        threshold: An entry at most this far away answers, as 1 − cosine.
        ratio: And only if it is nearer than this share of the distance to the nearest entry with another answer.
        min_confidence: Largest softmax probability that an answer needs to be given again at once.
        trust: Others are given where (agreed + 1) / (runs + 2) is at least this; never at 1.
        capacity: Entries at most.
        eviction: Which entry goes when there are as many.
        ttl_seconds: How long an entry is good; for ever where None.
        answer: Of the network.
    """

    key: str
    dimensions: Positive
    threshold: Annotated[float, Field(ge=0, lt=1)]
    ratio: Annotated[float, Field(gt=0, le=1)]
    min_confidence: Annotated[float, Field(ge=0, le=1)]
    trust: Annotated[float, Field(gt=0.5, le=1)]
    capacity: Capacity
    eviction: Eviction
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    answer: AnswerForm


@dataclass(frozen=True)
class LearnedStatistics:
    """What was kept at the end of a stage since the model was opened.

    Args:
        entries: That there are.
        hits: Samples that an entry answered.
        misses: Samples that came, and went on.
        unsure: Of those, samples near an entry that may not answer yet, or no longer.
        evicted: Entries that had to go for others.
        expired: Entries that were too old.
    """

    entries: int
    hits: int
    misses: int
    unsure: int
    evicted: int
    expired: int

    @property
    def hit_rate(self) -> float:
        """Share of the samples that came that an entry answered; 0 where none came."""
        return self.hits / max(1, self.hits + self.misses)


class Met(NamedTuple):
    """What samples met at the end of a stage.

    Args:
        keys: N × dimensions.
        slots: Of the entries near them; `cache_index.NOTHING` where there was none.
        serials: Of those entries, see `Store.serials`.
    """

    keys: Array
    slots: list[int]
    serials: Array

    def part(self, rows: Array) -> Met:
        """Take some of the samples."""
        return Met(self.keys[rows], [self.slots[row] for row in rows.tolist()], self.serials[rows])


class Learned:
    """Entries at the end of a stage; one lock guards them, and no network runs inside of it.

    Args:
        entries: How they are compared and kept.
        clock: Seconds.

    Example:
        >>> form = AnswerForm(dtype="float32", shape=(2,))
        >>> entries = Entries(key="key", dimensions=2, threshold=0.1, ratio=0.5, min_confidence=0.6, trust=1,
        ...                   capacity=8, eviction="lru", answer=form)
        >>> learned, keys = Learned(entries), np.eye(2, dtype=np.float32)
        >>> _, hit, met = learned.look_up(keys)
        >>> learned.learn(met, np.array([[3, 0], [0, 0.1]], np.float32))
        >>> hit.tolist(), learned.look_up(keys)[1].tolist()
        ([False, False], [True, False])
    """

    def __init__(self, entries: Entries, clock: Callable[[], float] = time.monotonic) -> None:
        self._min_confidence = entries.min_confidence
        self._store = Store(
            ExactIndex(entries.capacity, entries.dimensions),
            entries.capacity,
            entries.answer.shape,
            entries.answer.dtype,
            entries.threshold,
            entries.ratio,
            entries.trust,
            entries.eviction,
            entries.ttl_seconds,
            clock,
        )
        self._lock = threading.Lock()
        self._hits = self._misses = self._unsure = 0

    def look_up(self, keys: Array) -> tuple[Array, Array, Met]:
        """Search for N keys.

        Returns:
            The answers of the entries near them, whether these may stand for the network's own, and what was met.
        """
        with self._lock:
            slots = self._store.find(keys)
            hit = [self._store.may_answer(slot) for slot in slots]
            hits, near = sum(hit), sum(slot >= 0 for slot in slots)
            self._hits, self._misses = self._hits + hits, self._misses + len(hit) - hits
            self._unsure += near - hits
            return self._store.answers(slots), np.array(hit), Met(keys, slots, self._store.serials(slots))

    def learn(self, met: Met, answers: Array) -> None:
        """Take in what is answered to samples that went on; a key that is not finite is left out."""
        sure = (confidence(answers) >= self._min_confidence).tolist()
        finite = [bool(np.isfinite(key).all()) for key in met.keys]
        with self._lock:
            for row, (slot, serial) in enumerate(zip(met.slots, met.serials.tolist(), strict=True)):
                if finite[row]:
                    self._store.learn(slot, serial, met.keys[row], answers[row], sure[row])

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._store.clear()

    @property
    def statistics(self) -> LearnedStatistics:
        """What happened since the model was opened."""
        with self._lock:
            return LearnedStatistics(
                len(self._store), self._hits, self._misses, self._unsure, self._store.evicted, self._store.expired
            )
