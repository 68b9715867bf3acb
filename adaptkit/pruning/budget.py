"""Sharing one budget of parameters or multiply-accumulates among layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def share_budget(energies: Mapping[str, Tensor], costs: Mapping[str, float], budget: float) -> dict[str, int]:
    """Say how many units each layer keeps, so that what is lost is little for what is saved.

    A unit is worth its share of its layer's energy. The units of highest worth per cost stay until the budget is spent:
    the solution of the knapsack problem up to one unit (Dantzig 1957, "Discrete-variable extremum problems"). Every
    layer keeps one unit.

    Args:
        energies: Σ w² of every unit, by layer.
        costs: Of one unit, by layer.
        budget: What the kept units may cost together.

    Example:
        >>> energies = {"a": torch.tensor([4.0, 3.0, 1.0]), "b": torch.tensor([9.0, 1.0])}
        >>> share_budget(energies, {"a": 1.0, "b": 2.0}, budget=4)
        {'a': 2, 'b': 1}
    """
    names = list(energies)
    flat = [energies[name].detach().double().flatten() for name in names]
    worth = [one / one.sum().clamp(min=1e-300) / costs[name] for name, one in zip(names, flat, strict=True)]
    for one in worth:
        one[one.argmax()] = torch.inf
    order = torch.cat(worth).argsort(descending=True, stable=True)
    each = torch.cat([torch.full((len(one),), costs[name]) for name, one in zip(names, worth, strict=True)]).double()
    owner = torch.cat([torch.full((len(one),), place) for place, one in enumerate(worth)])
    # The first of every layer stay in any case; the small slack forgives rounding in the sum.
    stays = each[order].cumsum(0) <= budget * (1 + 1e-9)
    stays[: len(names)] = True
    counts = owner[order[stays]].bincount(minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))
