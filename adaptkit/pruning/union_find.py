"""Sets of channel elements that must be pruned together."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


class UnionFind:
    """Disjoint sets of ids 0, 1, 2, …, some of them frozen: never to be pruned.

    Pairs are gathered and joined all at once when a representative is asked for, since models have millions of them.

    Example:
        >>> sets = UnionFind()
        >>> a, b = sets.new(3), sets.new(3)
        >>> sets.union(a, b)
        >>> sets.freeze(b[:1])
        >>> sets.roots().tolist(), sets.frozen().tolist()
        ([0, 1, 2, 0, 1, 2], [True, False, False, True, False, False])
    """

    def __init__(self) -> None:
        self._count = 0
        self._roots: Ids = np.empty(0, dtype=np.int64)
        self._pairs: list[tuple[Ids, Ids]] = []
        self._frozen: list[Ids] = []

    def new(self, count: int) -> Ids:
        """Make `count` new ids, each a set of its own."""
        first = self._count
        self._count += count
        return np.arange(first, self._count, dtype=np.int64)

    def union(self, a: Ids, b: Ids) -> None:
        """Join each element of `a` with the element of `b` (broadcast to the same shape) at its place."""
        if a is not b:
            first, second = np.broadcast_arrays(a, b)
            self._pairs.append((first.ravel(), second.ravel()))

    def freeze(self, ids: Ids) -> None:
        """Mark the sets of these ids as never to be pruned."""
        self._frozen.append(ids.ravel())

    def roots(self) -> Ids:
        """Return the representative of every id: the smallest of its set."""
        roots = np.concatenate([self._roots, np.arange(len(self._roots), self._count, dtype=np.int64)])
        if self._pairs:
            first, second = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
            roots = _joined(roots, first, second)
            self._pairs.clear()
        self._roots = roots
        return roots

    def frozen(self) -> NDArray[np.bool_]:
        """Say of every id whether its set is frozen."""
        roots = self.roots()
        marked = np.zeros(len(roots), dtype=bool)
        if self._frozen:
            marked[roots[np.concatenate(self._frozen)]] = True
        return np.asarray(marked[roots])


def _joined(roots: Ids, first: Ids, second: Ids) -> Ids:
    """Hang the larger of two roots under the smaller until every pair has one root."""
    while True:
        left, right = roots[first], roots[second]
        apart = left != right
        if not apart.any():
            return roots
        first, second = first[apart], second[apart]
        left, right = left[apart], right[apart]
        np.minimum.at(roots, np.maximum(left, right), np.minimum(left, right))
        while (roots[roots] != roots).any():
            roots = roots[roots]
