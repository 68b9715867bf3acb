"""Finds the stored key that is nearest to a new one, and the nearest of those with another answer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from adaptkit.runtime.result import Array

NOTHING = -1
"""The slot of a search in an empty index."""
_FAR = 255
_FIRST = 16


class Found(NamedTuple):
    """What a search for one key finds; plain numbers, since numpy takes longer for one than the search itself.

    Args:
        slot: Of the nearest key; `NOTHING` where there is none.
        distance: To it; infinity where there is none.
        other: To the nearest key with another label; infinity where there is none.
    """

    slot: int
    distance: float
    other: float


NONE = Found(NOTHING, math.inf, math.inf)


class Nearest(NamedTuple):
    """What a search for N keys finds, see `Found`: arrays of N."""

    slots: Array
    distances: Array
    others: Array


class Index(Protocol):
    """Keys with labels, by slot; used from one thread at a time."""

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a key in a free slot."""

    def remove(self, slot: int) -> None:
        """Free a slot."""

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N keys."""


def nearest(index: Index, keys: Array) -> Nearest:
    """Search for each of N keys, and gather what is found."""
    slots, distances, others = zip(*index.search(keys), strict=True)
    return Nearest(np.array(slots), np.array(distances), np.array(others))


class ExactIndex:
    """Unit vectors in one array; a search is one product of matrices, its distance 1 − cosine.

    Args:
        capacity: Slots.
        dimensions: Of a key.

    Example:
        >>> index = ExactIndex(4, 2)
        >>> index.add(0, np.array([1, 0], np.float32), label=7)
        >>> index.add(1, np.array([0, 1], np.float32), label=8)
        >>> [found] = index.search(np.array([[0.6, 0.8]], np.float32))
        >>> found.slot, round(found.distance, 6), round(found.other, 6)
        (1, 0.2, 0.4)
    """

    def __init__(self, capacity: int, dimensions: int) -> None:
        self._keys, self._labels = np.zeros((capacity, dimensions), np.float32), np.full(capacity, NOTHING)
        self._used, self._alive = 0, 0

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a unit vector."""
        self._keys[slot], self._labels[slot] = key, label
        self._used, self._alive = max(self._used, slot + 1), self._alive + 1

    def remove(self, slot: int) -> None:
        """Free a slot; zeros stay there, which are at distance 1 of everything: no threshold reaches that far."""
        self._keys[slot], self._labels[slot] = 0, NOTHING
        self._alive -= 1

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys: Array = self._keys[slots]
        return keys

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N × dimensions keys."""
        if not self._alive:
            return [NONE] * len(keys)
        labels, found = self._labels[: self._used], []
        for cosines in keys @ self._keys[: self._used].T:
            slot = int(cosines.argmax())
            other = cosines.max(where=labels != labels[slot], initial=-np.inf)
            found.append(Found(slot, _distance(float(cosines[slot])), _distance(float(other))))
        return found


class BitIndex:
    """Hashes of 64 bits in one array; a distance is the number of bits that differ.

    Args:
        capacity: Slots.

    Example:
        >>> index = BitIndex(4)
        >>> index.add(2, np.uint64(0b1011), label=1)
        >>> index.search(np.array([0b1000], np.uint64))
        [Found(slot=2, distance=2.0, other=inf)]
    """

    def __init__(self, capacity: int) -> None:
        self._keys, self._labels = np.zeros(capacity, np.uint64), np.full(capacity, NOTHING)
        self._used, self._alive = 0, 0

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a hash."""
        self._keys[slot], self._labels[slot] = key, label
        self._used, self._alive = max(self._used, slot + 1), self._alive + 1

    def remove(self, slot: int) -> None:
        """Free a slot."""
        self._labels[slot] = NOTHING
        self._alive -= 1

    def keys_of(self, slots: Array) -> Array:
        """Give stored hashes back."""
        keys: Array = self._keys[slots]
        return keys

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N hashes."""
        if not self._alive:
            return [NONE] * len(keys)
        labels, found = self._labels[: self._used], []
        alive = labels != NOTHING
        for key in keys:
            bits = np.where(alive, np.bitwise_count(self._keys[: self._used] ^ key), _FAR)
            slot = int(bits.argmin())
            other = int(bits.min(where=labels != labels[slot], initial=_FAR))
            found.append(Found(slot, float(bits[slot]), math.inf if other == _FAR else float(other)))
        return found


class ListIndex:
    """Unit vectors in lists, one for each centre; a search looks into the lists of the nearest centres only.

    What is not in these lists is not found: a hit that exact search would have had can be a miss (Sivic and Zisserman
    2003, "Video Google"; inverted lists).

    Args:
        capacity: Slots.
        centres: Lists × dimensions, unit vectors.
        probes: Lists that a search looks into.

    Example:
        >>> index = ListIndex(4, np.eye(2, dtype=np.float32), 1)
        >>> index.add(3, np.array([0.8, 0.6], np.float32), label=0)
        >>> [(found.slot, round(found.distance, 6)) for found in index.search(np.eye(2, dtype=np.float32))]
        [(3, 0.2), (-1, inf)]
    """

    def __init__(self, capacity: int, centres: Array, probes: int) -> None:
        self._centres, self._probes = np.ascontiguousarray(centres, np.float32), min(probes, len(centres))
        self._keys = [np.zeros((_FIRST, centres.shape[1]), np.float32) for _ in centres]
        self._slots = [np.zeros((2, _FIRST), np.int64) for _ in centres]  # slots, and the labels below
        self._counts = [0] * len(centres)
        self._list, self._place = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a unit vector at the end of its list."""
        number = int((self._centres @ key).argmax())
        count = self._counts[number]
        if count == len(self._keys[number]):
            self._keys[number] = np.concatenate([self._keys[number], np.zeros_like(self._keys[number])])
            self._slots[number] = np.concatenate([self._slots[number], np.zeros_like(self._slots[number])], axis=1)
        self._keys[number][count], self._slots[number][:, count] = key, (slot, label)
        self._counts[number] = count + 1
        self._list[slot], self._place[slot] = number, count

    def remove(self, slot: int) -> None:
        """Free a slot; the last of its list takes its place."""
        number, place = int(self._list[slot]), int(self._place[slot])
        last = self._counts[number] = self._counts[number] - 1
        self._keys[number][place] = self._keys[number][last]
        self._slots[number][:, place] = self._slots[number][:, last]
        self._place[self._slots[number][0, last]] = place

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys = [self._keys[self._list[slot]][self._place[slot]] for slot in slots]
        return np.array(keys, np.float32).reshape(len(keys), self._centres.shape[1])

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N × dimensions keys."""
        return [self._search(key) for key in keys]

    def _search(self, key: Array) -> Found:
        numbers = [number for number in self._lists(key) if self._counts[number]]
        if not numbers:
            return NONE
        cosines = [self._keys[number][: self._counts[number]] @ key for number in numbers]
        places = [int(each.argmax()) for each in cosines]
        best = max(range(len(numbers)), key=lambda i: cosines[i][places[i]])
        slot, label = self._slots[numbers[best]][:, places[best]].tolist()
        other = -math.inf
        for number, each in zip(numbers, cosines, strict=True):
            labels = self._slots[number][1, : len(each)]
            other = max(other, float(each.max(where=labels != label, initial=-np.inf)))
        return Found(slot, _distance(float(cosines[best][places[best]])), _distance(other))

    def _lists(self, key: Array) -> list[int]:
        near = self._centres @ key
        if self._probes == len(near):
            return list(range(len(near)))
        chosen = []
        for _ in range(self._probes):  # faster than a partition for as few as pay
            number = int(near.argmax())
            near[number] = -np.inf
            chosen.append(number)
        return chosen


def _distance(cosine: float) -> float:
    """Return 1 − cosine, not below zero; what is no number stays none, and is near to nothing."""
    return 0.0 if cosine >= 1 else 1 - cosine


def near(distance: Any, other: Any, threshold: float, ratio: float) -> Any:
    """Say whether an entry is near enough to answer: distance ≤ threshold and distance < ratio · other.

    Numbers or arrays. It must be near, and clearly nearer than the nearest entry with another answer (Lowe 2004,
    "Distinctive image features from scale-invariant keypoints", section 7.1; FoggyCache, Guo et al. 2018, asks
    neighbours to agree for the same reason).

    Example:
        >>> [near(0.1, other, threshold=0.2, ratio=0.5) for other in (0.5, 0.15)], near(0.9, math.inf, 0.2, 0.5)
        ([True, False], False)
    """
    return (distance <= threshold) & (distance < ratio * other)


def hits(found: Nearest, threshold: float, ratio: float) -> Array:
    """Say which of N searches found an entry that is `near` enough."""
    answered: Array = near(found.distances, found.others, threshold, ratio)
    return answered
