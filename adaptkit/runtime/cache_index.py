"""Finds the stored key that is nearest to a new one."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from adaptkit.runtime.result import Array

NOTHING = -1
"""The slot of a search in an empty index."""
_DEAD = 255
_FIRST = 16


class Index(Protocol):
    """Keys by slot; used from one thread at a time."""

    def add(self, slot: int, key: Array) -> None:
        """Store a key in a free slot."""

    def remove(self, slot: int) -> None:
        """Free a slot."""

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""

    def nearest(self, keys: Array) -> tuple[Array, Array]:
        """Give slot and distance of the nearest stored key for each of N keys; `NOTHING` and infinity where empty."""


class ExactIndex:
    """Unit vectors in one array; a search is one product of matrices, its distance 1 − cosine.

    Args:
        capacity: Slots.
        dimensions: Of a key.

    Example:
        >>> index = ExactIndex(4, 2)
        >>> index.add(0, np.array([1, 0], np.float32))
        >>> index.add(1, np.array([0, 1], np.float32))
        >>> slots, distances = index.nearest(np.array([[0.6, 0.8]], np.float32))
        >>> int(slots[0]), round(float(distances[0]), 6)
        (1, 0.2)
    """

    def __init__(self, capacity: int, dimensions: int) -> None:
        self._keys, self._used, self._alive = np.zeros((capacity, dimensions), np.float32), 0, 0

    def add(self, slot: int, key: Array) -> None:
        """Store a unit vector."""
        self._keys[slot] = key
        self._used, self._alive = max(self._used, slot + 1), self._alive + 1

    def remove(self, slot: int) -> None:
        """Free a slot; zeros stay there, which are at distance 1 of everything: no threshold reaches that far."""
        self._keys[slot] = 0
        self._alive -= 1

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys: Array = self._keys[slots]
        return keys

    def nearest(self, keys: Array) -> tuple[Array, Array]:
        """Search for each of N × dimensions keys."""
        if not self._alive:
            return _nothing(len(keys))
        cosines = keys @ self._keys[: self._used].T
        slots = cosines.argmax(1)
        return slots, 1 - cosines[np.arange(len(keys)), slots]


class BitIndex:
    """Hashes of 64 bits in one array; a distance is the number of bits that differ.

    Args:
        capacity: Slots.

    Example:
        >>> index = BitIndex(4)
        >>> index.add(2, np.uint64(0b1011))
        >>> [int(found[0]) for found in index.nearest(np.array([0b1000], np.uint64))]
        [2, 2]
    """

    def __init__(self, capacity: int) -> None:
        self._keys, self._dead = np.zeros(capacity, np.uint64), np.full(capacity, _DEAD, np.uint8)
        self._used, self._alive = 0, 0

    def add(self, slot: int, key: Array) -> None:
        """Store a hash."""
        self._keys[slot], self._dead[slot] = key, 0
        self._used, self._alive = max(self._used, slot + 1), self._alive + 1

    def remove(self, slot: int) -> None:
        """Free a slot."""
        self._dead[slot] = _DEAD
        self._alive -= 1

    def keys_of(self, slots: Array) -> Array:
        """Give stored hashes back."""
        keys: Array = self._keys[slots]
        return keys

    def nearest(self, keys: Array) -> tuple[Array, Array]:
        """Search for each of N hashes."""
        if not self._alive:
            return _nothing(len(keys))
        slots, distances = np.empty(len(keys), np.int64), np.empty(len(keys))
        for row, key in enumerate(keys):
            bits = np.bitwise_count(self._keys[: self._used] ^ key) | self._dead[: self._used]
            slots[row] = bits.argmin()
            distances[row] = bits[slots[row]]
        return slots, distances


class ListIndex:
    """Unit vectors in lists, one for each centre; a search looks into the lists of the nearest centres only.

    What is not in these lists is not found: a hit that exact search would have had is then a miss, never another answer
    at a larger distance than its threshold (Sivic and Zisserman 2003, "Video Google"; inverted lists).

    Args:
        capacity: Slots.
        centres: Lists × dimensions, unit vectors.
        probes: Lists that a search looks into.

    Example:
        >>> index = ListIndex(4, np.eye(2, dtype=np.float32), 1)
        >>> index.add(3, np.array([0.8, 0.6], np.float32))
        >>> slots, distances = index.nearest(np.eye(2, dtype=np.float32))
        >>> slots.tolist(), distances.round(6).tolist()
        ([3, -1], [0.2, inf])
    """

    def __init__(self, capacity: int, centres: Array, probes: int) -> None:
        self._centres, self._probes = np.ascontiguousarray(centres, np.float32), min(probes, len(centres))
        self._keys = [np.zeros((_FIRST, centres.shape[1]), np.float32) for _ in centres]
        self._slots = [np.zeros(_FIRST, np.int64) for _ in centres]
        self._counts = [0] * len(centres)
        self._list, self._place = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)

    def add(self, slot: int, key: Array) -> None:
        """Store a unit vector at the end of its list."""
        number = int((self._centres @ key).argmax())
        count = self._counts[number]
        if count == len(self._slots[number]):
            self._keys[number] = np.concatenate([self._keys[number], np.zeros_like(self._keys[number])])
            self._slots[number] = np.concatenate([self._slots[number], np.zeros_like(self._slots[number])])
        self._keys[number][count], self._slots[number][count] = key, slot
        self._counts[number] = count + 1
        self._list[slot], self._place[slot] = number, count

    def remove(self, slot: int) -> None:
        """Free a slot; the last of its list takes its place."""
        number, place = int(self._list[slot]), int(self._place[slot])
        last = self._counts[number] = self._counts[number] - 1
        moved = self._slots[number][last]
        self._keys[number][place], self._slots[number][place] = self._keys[number][last], moved
        self._place[moved] = place

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys = [self._keys[self._list[slot]][self._place[slot]] for slot in slots]
        return np.array(keys, np.float32).reshape(len(keys), self._centres.shape[1])

    def nearest(self, keys: Array) -> tuple[Array, Array]:
        """Search for each of N × dimensions keys."""
        slots, distances = _nothing(len(keys))
        for row, key in enumerate(keys):
            best = -np.inf
            for number in self._lists(key):
                count = self._counts[number]
                if not count:
                    continue
                cosines = self._keys[number][:count] @ key
                place = cosines.argmax()
                if cosines[place] > best:
                    best, slots[row] = cosines[place], self._slots[number][place]
            distances[row] = 1 - best
        return slots, distances

    def _lists(self, key: Array) -> list[int]:
        near = self._centres @ key
        if self._probes == 1:
            return [int(near.argmax())]
        if self._probes == len(near):
            return list(range(len(near)))
        chosen: list[int] = near.argpartition(-self._probes)[-self._probes :].tolist()
        return chosen


def _nothing(count: int) -> tuple[Array, Array]:
    return np.full(count, NOTHING), np.full(count, np.inf)
