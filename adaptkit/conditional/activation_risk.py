"""How often neighbours are wrong at a distance, and how far away they may be for a given risk."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

NEVER = float("inf")
"""The risk of neighbours that do not agree."""


class RiskTable:
    """The least risk at which a distance is near enough, class by class.

    With the samples of a class in order of distance, a limit at the i-th lets w_i wrong ones through: its risk is
    (w_i + 1) / (i + 2), the mean of the error's posterior under an even prior. A distance has the least risk of all
    limits that include it.

    Args:
        distances: N, of samples whose neighbours agree.
        labels: N, the class the neighbours agree on.
        wrong: N, whether the neighbours' answer is wrong.
        classes: How many there are.

    Example:
        >>> table = RiskTable(np.array([0.1, 0.2, 0.3]), np.zeros(3, int), np.array([False, False, True]), 1)
        >>> table.risks(np.array([0.05, 0.15, 0.25, 0.4]), np.zeros(4, int)).tolist()
        [0.25, 0.25, 0.4, inf]
        >>> table.limits(0.3)
        (0.2,)
    """

    def __init__(self, distances: Array, labels: Array, wrong: Array, classes: int) -> None:
        self._rows = []
        for label in range(classes):
            mine = np.flatnonzero(labels == label)
            mine = mine[np.argsort(distances[mine], kind="stable")]
            risk = (np.cumsum(wrong[mine]) + 1) / (np.arange(len(mine)) + 3)
            self._rows.append((distances[mine], np.minimum.accumulate(risk[::-1])[::-1]))

    def risks(self, distances: Array, labels: Array) -> Array:
        """Give the risk of each sample; `NEVER` beyond all that was seen."""
        found = np.full(len(distances), NEVER)
        for label, (seen, risk) in enumerate(self._rows):
            mine = labels == label
            place = np.searchsorted(seen, distances[mine])
            found[mine] = np.append(risk, NEVER)[place]
        return found

    def limits(self, risk: float) -> tuple[float, ...]:
        """Give the distance of each class up to which samples have at most this risk; −1 where there is none."""
        return tuple(float(seen[risks <= risk][-1]) if (risks <= risk).any() else -1.0 for seen, risks in self._rows)
