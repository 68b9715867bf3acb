"""Stored answers: found by key, given up in order, forgotten when they are old."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from adaptkit.runtime.cache_index import NOTHING, Index
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
        eviction: Eviction = "lru",
        ttl_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index, self._order, self._clock = index, ORDERS[eviction](), clock
        self._threshold, self._ratio, self._ttl = threshold, ratio, ttl_seconds
        self._answers = np.zeros((capacity, *shape), dtype)
        self._stored: OrderedDict[int, float] = OrderedDict()
        self._serials = np.zeros(capacity, np.int64)
        self._free = list(range(capacity - 1, -1, -1))
        self.evicted, self.expired, self._added = 0, 0, 0

    def __len__(self) -> int:
        return len(self._stored)

    def find(self, keys: Array) -> list[int]:
        """Give the slot of the entry that may answer for each of N keys, `NOTHING` where none may; counts as a use.

        It may where `cache_index.hits` says so.

        A key that is not finite is near to nothing.
        """
        self._forget_old()
        slots = []
        for slot, distance, other in self._index.search(keys):
            near = distance <= self._threshold and distance < self._ratio * other
            slots.append(slot if near else NOTHING)
            if near:
                self._order.touch(slot)
        return slots

    def answers(self, slots: list[int]) -> Array:
        """Copy the answers of some slots."""
        found: Array = self._answers[slots]
        return found

    def serials(self, slots: list[int]) -> Array:
        """Number the entries that are in some slots now; a later entry in the same slot has another number."""
        found: Array = self._serials[slots]
        return found

    def add(self, key: Array, answer: Array, uses: int = 0, stored: float | None = None) -> None:
        """Store an answer; the next in order goes where the store is full."""
        if not self._free:
            self._drop(self._order.victim())
            self.evicted += 1
        slot = self._free.pop()
        self._index.add(slot, key, int(answer.argmax()))
        self._order.add(slot, uses)
        self._answers[slot] = answer
        self._added += 1
        self._serials[slot], self._stored[slot] = self._added, self._clock() if stored is None else stored

    def discard(self, slot: int, serial: int) -> None:
        """Forget an entry, unless it is gone already."""
        if slot in self._stored and self._serials[slot] == serial:
            self._drop(slot)

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
        }

    def fill(self, entries: dict[str, Array]) -> None:
        """Add entries as `entries` gave them; where they are too many, the last ones stay."""
        for key, answer, uses, stored in zip(
            entries["keys"], entries["answers"], entries["uses"].tolist(), entries["stored"].tolist(), strict=True
        ):
            self.add(key, answer, uses, stored)
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
        del self._stored[slot]
        self._free.append(slot)
