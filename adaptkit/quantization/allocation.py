"""How many bits each layer gets, so that a budget holds and the loss is least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.errors import TargetError

_UNITS = 1 << 16


def allocate(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float) -> list[int]:
    """Choose one option a layer: least Σ loss under Σ cost ≤ budget, by dynamic programming over the budget.

    best(l, c) = min over options o of best(l − 1, c − cost(l, o)) + loss(l, o), for c from 0 to 65536 units of the
    budget. A cost is rounded up to units, so that the budget always holds; where all costs are whole numbers and the
    budget at most 65536 the result is exact.

    Args:
        costs: Of each option of each layer, positive.
        losses: Of each option of each layer.
        budget: Upper bound of the sum of costs.

    Returns:
        The index of the option of each layer.

    Raises:
        TargetError: Even the cheapest options cost more than the budget.

    Example:
        >>> allocate([[1, 4], [1, 4]], [[9.0, 0.0], [1.0, 0.0]], budget=5)
        [1, 0]
    """
    unit = max(budget / _UNITS, 1.0 if _whole(costs) and budget <= _UNITS else 0.0)
    size = int(budget / unit) + 1
    units = [[int(np.ceil(round(cost / unit, 9))) for cost in options] for options in costs]
    least = sum(min(options) for options in units)
    if least >= size:
        cheapest = sum(min(options) for options in costs)
        raise TargetError(f"the fewest bits cost {cheapest:g}, the budget is {budget:g}: raise it, or allow fewer bits")
    best, choices = np.zeros(size), []
    for options, own in zip(units, losses, strict=True):
        candidates = np.full((len(options), size), np.inf)
        for index, (cost, loss) in enumerate(zip(options, own, strict=True)):
            if cost < size:
                candidates[index, cost:] = best[: size - cost] + loss
        choices.append(candidates.argmin(0).astype(np.int16))
        best = candidates.min(0)
    chosen, left = [], size - 1
    for options, choice in zip(reversed(units), reversed(choices), strict=True):
        chosen.append(int(choice[left]))
        left -= options[chosen[-1]]
    return chosen[::-1]


def _whole(costs: Sequence[Sequence[float]]) -> bool:
    return all(float(cost).is_integer() for options in costs for cost in options)
