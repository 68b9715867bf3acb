"""Sets of channel elements that must be pruned together."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


class UnionFind:
    """Disjoint sets of ids 0, 1, 2, …, some of them frozen: never to be pruned.

    Example:
        >>> sets = UnionFind()
        >>> a, b = sets.new(3), sets.new(3)
        >>> sets.union(a, b)
        >>> sets.freeze(b[:1])
        >>> sets.roots().tolist(), sets.frozen().tolist()
        ([0, 1, 2, 0, 1, 2], [True, False, False, True, False, False])
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()

    def new(self, count: int) -> Ids:
        """Make `count` new ids, each a set of its own."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def find(self, element: int) -> int:
        """Return the representative of the set, its smallest id."""
        parent = self._parent
        while parent[element] != element:
            parent[element] = parent[parent[element]]
            element = parent[element]
        return element

    def union(self, a: Ids, b: Ids) -> None:
        """Join each element of `a` with the element of `b` (broadcast to the same shape) at its place."""
        if a is b:
            return
        for x, y in zip(*(side.ravel().tolist() for side in np.broadcast_arrays(a, b)), strict=True):
            first, second = sorted((self.find(x), self.find(y)))
            self._parent[second] = first

    def freeze(self, ids: Ids) -> None:
        """Mark the sets of these ids as never to be pruned."""
        self._frozen.update(ids.ravel().tolist())

    def roots(self) -> Ids:
        """Return the representative of every id."""
        return np.fromiter((self.find(element) for element in range(len(self._parent))), np.int64, len(self._parent))

    def frozen(self) -> NDArray[np.bool_]:
        """Say of every id whether its set is frozen."""
        roots = self.roots()
        marked = np.zeros(len(roots), dtype=bool)
        marked[[self.find(element) for element in self._frozen]] = True
        return np.asarray(marked[roots])
