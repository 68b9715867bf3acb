"""Finds the stored key that is nearest to a new one, and the nearest of those with another answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from adaptkit.runtime.result import Array

NOTHING = -1
"""The slot of a search in an empty index."""
_FAR = 255
_FIRST = 24
_BLOCK, _APART = 2**18, 16
"""Numbers of a block: products of larger ones are split among threads, which wait for each other on a busy machine."""
_TRIES = 8
_NEVER = -math.inf


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
    """Unit vectors in blocks, a vector a column; a search is a product of a vector and a matrix for each block.

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
        self._width = min(capacity, max(_FIRST, _BLOCK // dimensions - _APART))
        self._blocks = _blocks(-(-capacity // self._width), dimensions, self._width)
        self._labels, self._cosines = np.full(capacity, NOTHING), np.zeros(capacity, np.float32)
        self._used, self._alive = 0, 0
        self._parts: list[tuple[Array, Array]] = []

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a unit vector."""
        number, place = divmod(slot, self._width)
        self._blocks[number][:, place], self._labels[slot] = key, label
        self._alive += 1
        if slot >= self._used:
            self._used = slot + 1
            self._parts = [
                (block[:, : self._used - start], self._cosines[start : min(self._used, start + self._width)])
                for start, block in zip(range(0, self._used, self._width), self._blocks, strict=False)
            ]

    def remove(self, slot: int) -> None:
        """Free a slot; zeros stay there, which are at distance 1 of everything: no threshold reaches that far."""
        number, place = divmod(slot, self._width)
        self._blocks[number][:, place], self._labels[slot] = 0, NOTHING
        self._alive -= 1

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys = [self._blocks[slot // self._width][:, slot % self._width] for slot in slots]
        return np.array(keys, np.float32).reshape(len(keys), self._blocks.shape[1])

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N × dimensions keys, of the type that was stored."""
        if not self._alive:
            return [NONE] * len(keys)
        return [self._search(key) for key in keys]

    def _search(self, key: Array) -> Found:
        for block, cosines in self._parts:
            key.dot(block, cosines)
        slot, cosine, other = best_two(self._cosines[: self._used], self._labels.item, self._all_labels)
        return Found(slot, _distance(cosine), _distance(other))

    def _all_labels(self) -> Array:
        return self._labels[: self._used]


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
        self._centres, self._probes = np.ascontiguousarray(centres.T, np.float32), min(probes, len(centres))
        self._near = np.zeros(len(centres), np.float32)
        self._lists = [_List(centres.shape[1]) for _ in centres]
        self._list, self._place = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self._cosines = np.zeros(_FIRST, np.float32)

    def add(self, slot: int, key: Array, label: int) -> None:
        """Store a unit vector at the end of its list."""
        number = int(key.dot(self._centres, self._near).argmax())
        self._list[slot], self._place[slot] = number, self._lists[number].append(slot, key, label)

    def remove(self, slot: int) -> None:
        """Free a slot; the last of its list takes its place."""
        place = int(self._place[slot])
        self._place[self._lists[int(self._list[slot])].remove(place)] = place

    def keys_of(self, slots: Array) -> Array:
        """Give stored keys back."""
        keys = [self._lists[self._list[slot]].keys[self._place[slot]] for slot in slots]
        return np.array(keys, np.float32).reshape(len(keys), len(self._centres))

    def search(self, keys: Array) -> list[Found]:
        """Search for each of N × dimensions keys, of the type that was stored."""
        return [self._search(key) for key in keys]

    def _search(self, key: Array) -> Found:
        chosen, end = [], 0
        for each in self._nearest_lists(key):
            if each.count:
                start, end = end, end + each.count
                if end > len(self._cosines):
                    self._cosines = np.concatenate([self._cosines[:start], np.zeros(2 * end, np.float32)])
                each.keys.dot(key, self._cosines[start:end])
                chosen.append((start, each))
        if not chosen:
            return NONE
        best, cosine, other = best_two(
            self._cosines[:end],
            lambda place: _at(chosen, place)[1],
            lambda: np.concatenate([each.labels for _, each in chosen]),
        )
        return Found(_at(chosen, best)[0], _distance(cosine), _distance(other))

    def _nearest_lists(self, key: Array) -> list[_List]:
        if self._probes == len(self._lists):
            return self._lists
        near, chosen = key.dot(self._centres, self._near), []
        for _ in range(self._probes):  # faster than a partition for as few as pay
            number = near.argmax()
            near[number] = _NEVER
            chosen.append(self._lists[number])
        return chosen


class _List:
    """Keys, a row each, with their slots and labels, without gaps: what is used of larger arrays.

    A list is short and seldom in the processor's caches, where rows are read faster than columns.

    Args:
        dimensions: Of a key.
    """

    def __init__(self, dimensions: int) -> None:
        self._room = np.zeros((_FIRST, dimensions), np.float32), np.zeros((_FIRST, 2), np.int64)
        self._resize(0)

    def _resize(self, count: int) -> None:
        self.count = count
        keys, numbers = self._room
        self.keys, self.slots, self.labels = keys[:count], numbers[:count, 0], numbers[:count, 1]

    def append(self, slot: int, key: Array, label: int) -> int:
        """Store a key, and say where."""
        place = self.count
        if place == len(self._room[0]):
            keys, numbers = self._room
            self._room = np.vstack([keys, np.zeros_like(keys)]), np.vstack([numbers, np.zeros_like(numbers)])
        self._resize(place + 1)
        self.keys[place], self.slots[place], self.labels[place] = key, slot, label
        return place

    def remove(self, place: int) -> int:
        """Put the last key into the place of one, and say which slot that was."""
        last = self.count - 1
        for numbers in (self.keys, self.slots, self.labels):
            numbers[place] = numbers[last]
        moved = int(self.slots[place])
        self._resize(last)
        return moved


def best_two(cosines: Array, label_of: Callable[[int], int], labels: Callable[[], Array]) -> tuple[int, float, float]:
    """Find the largest of N numbers, and the largest of those with another label than that one has.

    The next ones are taken in turn, since mostly one of the first few has another label, and finding a largest is an
    order faster than looking at all labels.

    Args:
        cosines: N; some are overwritten.
        label_of: Gives the label of a place,
        labels: and those of all N, which is asked for where the first few all have one.

    Returns:
        Where the largest is, how large it is, and the other one; −∞ where there is none.

    Example:
        >>> labels = np.array([2, 1, 1, 3])
        >>> best_two(np.array([0.5, 0.875, 0.75, 0.25]), labels.item, lambda: labels)
        (1, 0.875, 0.5)
    """
    best = place = int(cosines.argmax())
    largest, label = cosines.item(best), label_of(best)
    for _ in range(_TRIES):
        cosines[place] = _NEVER
        place = int(cosines.argmax())
        other = cosines.item(place)
        if other == _NEVER or label_of(place) != label:
            return best, largest, other
    cosines[labels() == label] = _NEVER
    return best, largest, float(cosines.max())


def _at(chosen: list[tuple[int, _List]], place: int) -> tuple[int, int]:
    """Give the slot and the label of a place in lists that were laid behind each other."""
    for start, found in chosen:
        if place < start + found.count:
            break
    return found.slots.item(place - start), found.labels.item(place - start)


def _blocks(count: int, dimensions: int, width: int) -> Array:
    """Make room for columns, in one piece, which the operating system maps in large pages.

    Rows that lie a power of two apart would push each other out of the processor's caches.
    """
    stride = width + (_APART if width % 256 == 0 else 0)
    return np.zeros((count, dimensions, stride), np.float32)[:, :, :width]


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
