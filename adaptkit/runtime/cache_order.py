"""Which entry of a full cache has to go."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, Protocol

Eviction = Literal["lru", "lfu"]


class Order(Protocol):
    """Keeps the slots of a cache in the order in which they are given up."""

    def add(self, slot: int, uses: int = 0) -> None:
        """Take in a slot, the latest of those with as many uses."""

    def touch(self, slot: int) -> None:
        """Note that a slot was used."""

    def remove(self, slot: int) -> None:
        """Forget a slot."""

    def victim(self) -> int:
        """Name the slot to give up next; there must be one."""

    def uses(self, slot: int) -> int:
        """Say how often a slot was used."""

    def slots(self) -> list[int]:
        """List all slots, the next to be given up first."""


class LeastRecent:
    """Gives up what was not used for the longest time; every step takes the same time.

    Example:
        >>> order = LeastRecent()
        >>> for slot in (0, 1, 2): order.add(slot)
        >>> order.touch(0)
        >>> order.victim()
        1
    """

    def __init__(self) -> None:
        self._uses: OrderedDict[int, int] = OrderedDict()

    def add(self, slot: int, uses: int = 0) -> None:
        """Take in a slot as the latest."""
        self._uses[slot] = uses

    def touch(self, slot: int) -> None:
        """Make a slot the latest."""
        self._uses[slot] += 1
        self._uses.move_to_end(slot)

    def remove(self, slot: int) -> None:
        """Forget a slot."""
        del self._uses[slot]

    def victim(self) -> int:
        """Name the slot that was not used for the longest time."""
        return next(iter(self._uses))

    def uses(self, slot: int) -> int:
        """Say how often a slot was used."""
        return self._uses[slot]

    def slots(self) -> list[int]:
        """List all slots, the next to be given up first."""
        return list(self._uses)


class LeastFrequent:
    """Gives up what was used least often; among those as often, what was not used for the longest time.

    Slots with the same number of uses stand in one row, in the order they came to it (Shah, Mitra and Matani 2010,
    "An O(1) algorithm for implementing the LFU cache eviction scheme").

    Example:
        >>> order = LeastFrequent()
        >>> for slot in (0, 1, 2): order.add(slot)
        >>> order.touch(0)
        >>> order.touch(1)
        >>> order.victim()
        2
    """

    def __init__(self) -> None:
        self._uses: dict[int, int] = {}
        self._rows: dict[int, OrderedDict[int, None]] = {}

    def add(self, slot: int, uses: int = 0) -> None:
        """Take in a slot as the latest of those with as many uses."""
        self._uses[slot] = uses
        self._rows.setdefault(uses, OrderedDict())[slot] = None

    def touch(self, slot: int) -> None:
        """Move a slot to the row after its own."""
        uses = self._uses[slot]
        self.remove(slot)
        self.add(slot, uses + 1)

    def remove(self, slot: int) -> None:
        """Forget a slot."""
        uses = self._uses.pop(slot)
        row = self._rows[uses]
        del row[slot]
        if not row:
            del self._rows[uses]

    def victim(self) -> int:
        """Name the first of the row with the fewest uses."""
        return next(iter(self._rows[min(self._rows)]))

    def uses(self, slot: int) -> int:
        """Say how often a slot was used."""
        return self._uses[slot]

    def slots(self) -> list[int]:
        """List all slots, the next to be given up first."""
        return [slot for uses in sorted(self._rows) for slot in self._rows[uses]]


ORDERS: dict[Eviction, type[LeastRecent] | type[LeastFrequent]] = {"lru": LeastRecent, "lfu": LeastFrequent}
