"""Stored answers: found by key, given up in order, forgotten when they are old."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from adaptkit.runtime.cache_index import NOTHING, Index, near
from adaptkit.runtime.cache_order import ORDERS, Eviction
from adaptkit.runtime.result import Array


class Store:
    """Answers by key; used from one thread at a time.

    Args:
        index: Finds keys.
        capacity: Entries at most.
        shape: Of an answer.
        dtype: numpy's name of its type.
        threshold: An entry at most this far away is found.
        ratio: And nearer than this share of the distance to the nearest entry with another answer.
        trust: What (agreed + 1) / (runs + 2) must be for an answer that the model was not sure of to be given.
        eviction: Which entry goes when the store is full.
        ttl_seconds: How long an entry is good; for ever where None.
        clock: Seconds since any time that stays the same when a process starts anew.

    Example:
        >>> from adaptkit.runtime.cache_index import ExactIndex
        >>> store = Store(ExactIndex(2, 2), 2, (3,), "float32", threshold=0.1, ratio=0.5)
        >>> store.add(np.array([1, 0], np.float32), np.arange(3))
        >>> slots = store.find(np.eye(2, dtype=np.float32))
        >>> slots, store.answers(slots[:1]).tolist()
        ([0, -1], [[0.0, 1.0, 2.0]])
    """

    def __init__(
        self,
        index: Index,
        capacity: int,
        shape: tuple[int, ...],
        dtype: str,
        threshold: float,
        ratio: float,
        trust: float = 1.0,
        eviction: Eviction = "lru",
        ttl_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index, self._order, self._clock = index, ORDERS[eviction](), clock
        self._threshold, self._ratio, self._trust, self._ttl = threshold, ratio, trust, ttl_seconds
        self._answers = np.zeros((capacity, *shape), dtype)
        self._stored: OrderedDict[int, float] = OrderedDict()
        self._serials = np.zeros(capacity, np.int64)
        self._runs: dict[int, list[int]] = {}  # how often the model ran, agreed, and was sure of it
        self._free = list(range(capacity - 1, -1, -1))
        self.evicted, self.expired, self._added = 0, 0, 0

    def __len__(self) -> int:
        return len(self._stored)

    def find(self, keys: Array) -> list[int]:
        """Give the slot of the entry that is near enough to each of N keys, `NOTHING` where none is; counts as a use.

        Near enough is what `cache_index.near` says. A key that is not finite is near to nothing.
        """
        self._forget_old()
        slots = []
        for slot, distance, other in self._index.search(keys):
            found = near(distance, other, self._threshold, self._ratio)
            slots.append(slot if found else NOTHING)
            if found:
                self._order.touch(slot)
        return slots

    def may_answer(self, slot: int) -> bool:
        """Say whether the model was sure of an entry and never took it back, or agreed often enough (`trusted`)."""
        if slot == NOTHING:
            return False
        runs, agreed, sure = self._runs[slot]
        return bool(sure and runs == agreed) or trusted(agreed, runs, self._trust)

    def answers(self, slots: list[int]) -> Array:
        """Copy the answers of some slots."""
        found: Array = self._answers[slots]
        return found

    def serials(self, slots: list[int]) -> Array:
        """Number the entries that are in some slots now; a later entry in the same slot has another number."""
        found: Array = self._serials[slots]
        return found

    def add(
        self,
        key: Array,
        answer: Array,
        sure: bool = True,
        uses: int = 0,
        stored: float | None = None,
        runs: tuple[int, int] = (1, 1),
    ) -> None:
        """Store an answer; the next in order goes where the store is full.

        Args:
            key: Finite.
            answer: Of the model.
            sure: Whether the model is sure enough of it.
            uses: How often it was used.
            stored: When; now where None.
            runs: How often the model ran for it, and agreed.
        """
        if not self._free:
            self._drop(self._order.victim())
            self.evicted += 1
        slot = self._free.pop()
        self._index.add(slot, key, int(answer.argmax()))
        self._order.add(slot, uses)
        self._answers[slot], self._runs[slot] = answer, [*runs, int(sure)]
        self._added += 1
        self._serials[slot], self._stored[slot] = self._added, self._clock() if stored is None else stored

    def learn(self, slot: int, serial: int, key: Array, answer: Array, sure: bool) -> None:
        """Take in what the model answers for a key, and which entry was near.

        An entry of the same class has agreed once more; one that was wrong more often than right gives way.

        Args:
            slot: Of the entry; `NOTHING` where none was near.
            serial: Of the entry, which can be gone by now.
            key: Finite.
            answer: Of the model.
            sure: Whether the model is sure enough of it.
        """
        if slot not in self._stored or self._serials[slot] != serial:
            self.add(key, answer, sure)
            return
        same = np.array_equal(answer.argmax(-1), self._answers[slot].argmax(-1))
        counts = self._runs[slot]
        counts[0], counts[1], counts[2] = counts[0] + 1, counts[1] + same, counts[2] or int(same and sure)
        if 2 * counts[1] < counts[0]:
            self._drop(slot)
            self.add(key, answer, sure)

    def clear(self) -> None:
        """Forget everything."""
        for slot in list(self._stored):
            self._drop(slot)

    def entries(self) -> dict[str, Array]:
        """Copy all entries, the next to be given up first."""
        self._forget_old()
        slots = np.array(self._order.slots(), np.int64)
        return {
            "keys": self._index.keys_of(slots),
            "answers": self._answers[slots],
            "uses": np.array([self._order.uses(slot) for slot in slots.tolist()], np.int64),
            "stored": np.array([self._stored[slot] for slot in slots.tolist()], np.float64),
            "runs": np.array([self._runs[slot] for slot in slots.tolist()], np.int64).reshape(-1, 3),
        }

    def fill(self, entries: dict[str, Array]) -> None:
        """Add entries as `entries` gave them; where they are too many, the last ones stay."""
        names = ("uses", "stored", "runs")
        for key, answer, uses, stored, (runs, agreed, sure) in zip(
            entries["keys"], entries["answers"], *(entries[name].tolist() for name in names), strict=True
        ):
            self.add(key, answer, bool(sure), uses, stored, (runs, agreed))
        self._stored = OrderedDict(sorted(self._stored.items(), key=lambda entry: entry[1]))
        self._forget_old()

    def _forget_old(self) -> None:
        if self._ttl is None:
            return
        latest = self._clock() - self._ttl
        while self._stored:
            slot, stored = next(iter(self._stored.items()))
            if stored > latest:
                return
            self._drop(slot)
            self.expired += 1

    def _drop(self, slot: int) -> None:
        self._index.remove(slot)
        self._order.remove(slot)
        del self._stored[slot], self._runs[slot]
        self._free.append(slot)


def trusted(agreed: int, runs: int, trust: float) -> bool:
    """Say whether an answer is trusted: (agreed + 1) / (runs + 2) ≥ trust.

    That is the mean of how often it agrees, where all rates were as likely before (Laplace's rule of succession).

    Example:
        >>> [trusted(runs, runs, 0.95) for runs in (17, 18)], trusted(1000, 1000, 1.0)
        ([False, True], False)
    """
    return agreed + 1 >= trust * (runs + 2)


def runs_to_trust(trust: float) -> int:
    """Give how many runs that agree make an answer trusted: the least n with (n + 1) / (n + 2) ≥ trust; below 1.

    Example:
        >>> runs_to_trust(0.9), runs_to_trust(0.95)
        (8, 18)
    """
    return next(runs for runs in itertools.count(1) if trusted(runs, runs, trust))


def confidence(answers: Array) -> Array:
    """Give the largest softmax probability of each answer.

    Example:
        >>> confidence(np.array([[0.0, 0.0], [0.0, np.log(3)]])).round(2).tolist()
        [0.5, 0.75]
    """
    flat = answers.reshape(len(answers), -1).astype(np.float64)
    sure: Array = 1 / np.exp(flat - flat.max(1, keepdims=True)).sum(1)
    return sure
