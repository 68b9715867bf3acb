"""Which units go, so that a cost falls to a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptkit.errors import TargetError

Counts = NDArray[np.float64]
Cost = Callable[[Counts], float]
Move = tuple[float, int, int]
"""What it loses, which candidate, and how many of its units stay."""

_PARTS = 4
TOLERANCE = 0.02
"""How far the cost may be from its target, relative to the target."""


@dataclass(frozen=True)
class Candidate:
    """A group that may be cut.

    Args:
        scores: Importance of each unit, comparable between groups.
        step: Units are removed so that what is left is a multiple of this.
        floor: Units that must stay.
        family: Candidates of one family are ranked together; each family gives up the same share of its units.
        rises: How much is lost when so many units stay, by their number; None where the scores of those that go say it.
    """

    scores: NDArray[np.float64]
    step: int
    floor: int
    family: int = 0
    rises: NDArray[np.float64] | None = None

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.scores)

    def levels(self) -> list[int]:
        """List the numbers of units that may stay, from all down to the floor."""
        return [self.size, *(n for n in range(self.size - 1, self.floor - 1, -1) if n % self.step == 0)]

    def order(self) -> NDArray[np.int64]:
        """Number the units, the least important first."""
        return np.argsort(self.scores, kind="stable")

    def lost(self, before: int, after: int) -> NDArray[np.float64]:
        """Return what is lost when `before` units become `after`, unit by unit or in one number."""
        if self.rises is not None:
            return self.rises[[after]] - self.rises[[before]]
        return np.sort(self.scores)[self.size - before : self.size - after]


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Args:
        removed: Numbers of the units to remove, least important first, for each candidate.
        ratio: The cost reached, as a share of the whole.
        relaxed: Candidates whose rounding had to be given up.
    """

    removed: tuple[tuple[int, ...], ...]
    ratio: float
    relaxed: tuple[int, ...]


def candidate(scores: Sequence[float], width: int, round_to: int, min_channels: int, family: int = 0) -> Candidate:
    """Turn channel counts into counts of units.

    Args:
        scores: Importance of each unit.
        width: Channels of a unit.
        round_to: The channels that stay are a multiple of this, or of a quarter of all where that is less.
        min_channels: At least so many channels stay, or all where there are fewer.
        family: Whom it is ranked with.

    Example:
        >>> candidate([1.0] * 32, width=1, round_to=8, min_channels=4).levels()
        [32, 24, 16, 8]
        >>> candidate([1.0] * 16, width=1, round_to=8, min_channels=4).levels()
        [16, 12, 8, 4]
        >>> candidate([1.0] * 12, width=64, round_to=8, min_channels=8).levels()[-1]
        1
    """
    channels = len(scores) * width
    floor = max(1, math.ceil(min(min_channels, channels) / width))
    multiple = min(round_to, max(1, channels // _PARTS))
    return Candidate(np.asarray(scores, dtype=float), multiple // math.gcd(multiple, width), floor, family)


def choose(
    candidates: Sequence[Candidate],
    cost: Cost,
    target: float,
    *,
    per_cost: bool = False,
    tolerance: float = TOLERANCE,
) -> Choice:
    """Remove the least important units until the cost has fallen to target × the whole cost.

    Each move takes one group to its next rounded width, or where losses are weighed against savings to any: of the
    family that has given up the least, the group that loses least. With one family that is a global ranking, with a
    family for each group a uniform one. Moves that would fall short of the target by more than the tolerance are passed
    over; where rounded widths do not meet it, as few groups as needed are cut to the unit.

    Args:
        candidates: The groups that may be cut.
        cost: Maps the number of units that stay of every candidate to the cost.
        target: Share of the whole cost to keep.
        per_cost: Weigh what is lost against what is saved, and look beyond the next width.
        tolerance: Allowed distance from the target, relative to it.

    Raises:
        TargetError: Even the narrowest model costs more.

    Example:
        >>> both = [candidate([1, 2, 3, 4], 1, 1, 1), candidate([5, 6, 7, 8], 1, 1, 1)]
        >>> choose(both, lambda kept: float(kept.sum()), 0.5).removed
        ((0, 1, 2), (0,))
    """
    whole = cost(np.array([one.size for one in candidates], dtype=float))
    least = cost(np.array([one.floor for one in candidates], dtype=float)) / whole
    if least > target * (1 + tolerance):
        raise TargetError(f"a ratio of {target:g} was asked for; the smallest these settings can reach is {least:.3f}")
    walk = _Walk(candidates, lambda kept: cost(kept) / whole, target, tolerance, per_cost)
    walk.descend([one.levels() for one in candidates])
    relaxed = walk.relax()
    removed = []
    for one, kept in zip(candidates, walk.kept, strict=True):
        removed.append(tuple(int(unit) for unit in one.order()[: one.size - int(kept)]))
    return Choice(tuple(removed), walk.now, relaxed)


class _Walk:
    """The state of a selection: how many units stay, and what that costs."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        ratio: Cost,
        target: float,
        tolerance: float,
        per_cost: bool,
    ) -> None:
        self.candidates = candidates
        self.ratio = ratio
        self.low, self.high = target * (1 - tolerance), target * (1 + tolerance)
        self.target = target
        self.per_cost = per_cost
        self.kept: Counts = np.array([one.size for one in candidates], dtype=float)
        self.now = 1.0
        self._families = np.array([one.family for one in candidates])
        self._known: dict[int, list[Move]] = {}

    def descend(self, levels: Sequence[Sequence[int]]) -> None:
        """Make the cheapest moves between the given levels until the target is met or nothing fits."""
        closed: set[int] = set()
        while self.now > self.high:
            open_ones = [number for number in range(len(levels)) if number not in closed]
            moves = [move for number in open_ones for move in self._moves(number, levels)]
            if not moves:
                return
            given = self._given()
            _, number, level = min(moves, key=lambda move: (given[self.candidates[move[1]].family], *move))
            after = self._ratio_with(number, level)
            if after < self.low:
                closed.add(number)
                continue
            self.kept[number], self.now = level, after
            self._known.pop(number, None)

    def relax(self) -> tuple[int, ...]:
        """Cut group by group to the unit where rounded widths miss the target; end as close as can be."""
        relaxed: list[int] = []
        while self.now > self.high:
            reach = [(self._ratio_with(n, one.floor), n) for n, one in enumerate(self.candidates) if n not in relaxed]
            enough = [(-ratio, n) for ratio, n in reach if ratio <= self.high]
            if not reach:
                break
            number = min(enough)[1] if enough else min(reach)[1]
            relaxed.append(number)
            self._approach(number)
        return tuple(sorted(relaxed))

    def _approach(self, number: int) -> None:
        """Take the number of units of one group that brings the cost closest to the target."""
        levels = range(int(self.kept[number]), self.candidates[number].floor - 1, -1)
        distances = [(abs(self._ratio_with(number, level) - self.target), -level) for level in levels]
        level = -min(distances)[1]
        self.kept[number], self.now = level, self._ratio_with(number, level)

    def _given(self) -> dict[int, float]:
        """Return the share of its units that each family has given up."""
        sizes = np.array([one.size for one in self.candidates], dtype=float)
        families = np.unique(self._families)
        if len(families) == 1:
            return {int(families[0]): 0.0}
        whose = [(int(family), self._families == family) for family in families]
        return {family: 1 - float(self.kept[mine].sum() / sizes[mine].sum()) for family, mine in whose}

    def _moves(self, number: int, levels: Sequence[Sequence[int]]) -> list[Move]:
        if number in self._known:
            return self._known[number]
        lower = [level for level in levels[number] if level < self.kept[number]]
        if not self.per_cost:
            lower = lower[:1]
        moves = [(self._key(number, level), number, level) for level in lower]
        moves = [move for move in moves if math.isfinite(move[0])]
        if not self.per_cost:  # what a move saves depends on the other groups, what it loses does not
            self._known[number] = moves
        return moves

    def _key(self, number: int, level: int) -> float:
        """What a move loses; the least goes first, and what is infinite not at all."""
        lost = self.candidates[number].lost(int(self.kept[number]), level)
        if not self.per_cost:
            return float(lost.mean())
        after = self._ratio_with(number, level)
        return float(lost.sum()) / (self.now - after) if self.low <= after < self.now else math.inf

    def _ratio_with(self, number: int, level: int) -> float:
        kept = self.kept.copy()
        kept[number] = level
        return self.ratio(kept)
