"""Rows and columns of weights as matrices: which go for one budget, and how they are pulled to zero in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import TargetError

Kept = dict[str, tuple[Tensor, Tensor]]
"""For each weight, which rows (out) and which columns (in · k · k) stay, as booleans."""


def choose_rows_and_columns(
    weights: Mapping[str, Tensor], costs: Mapping[str, float], free: Collection[str], budget: float
) -> Kept:
    """Choose the rows and columns of all weights that stay, with one threshold for all of them.

    A group g (row or column) of a weight is worth Σ_g w² / Σ w² for the cost of its entries; those worth most per cost
    stay, so that Σ rows · columns · cost is the highest that the budget allows. Every weight keeps a row and a column.

    Args:
        weights: out × in × …, by name.
        costs: Of one entry, by name.
        free: Names of the weights whose rows may go; of the others all rows stay.
        budget: What may remain of Σ entries · cost.

    Raises:
        TargetError: The smallest choice costs more.

    Example:
        >>> weight = torch.tensor([[3.0, 3.0, 0.1], [3.0, 3.0, 0.1], [0.1, 0.2, 0.1]])
        >>> rows, columns = choose_rows_and_columns({"w": weight}, {"w": 1.0}, {"w"}, budget=4)["w"]
        >>> rows.tolist(), columns.tolist()
        ([True, True, False], [True, True, False])
    """
    worth = {name: _worth(weight, costs[name], name in free) for name, weight in weights.items()}
    steps = torch.cat([part for pair in worth.values() for part in pair]).unique()  # type: ignore[no-untyped-call]
    low, high = 0, len(steps) - 1
    while low < high:  # the lowest threshold within the budget
        middle = (low + high) // 2
        if _cost(worth, float(steps[middle]), costs) <= budget:
            high = middle
        else:
            low = middle + 1
    threshold = float(steps[low])
    if (least := _cost(worth, threshold, costs)) > budget:
        whole = sum(weight.numel() * costs[name] for name, weight in weights.items())
        raise TargetError(
            f"a budget of {budget / whole:.4f} was asked for; rows and columns reach {least / whole:.4f} at least"
        )
    return {name: (rows >= threshold, columns >= threshold) for name, (rows, columns) in worth.items()}


def mask_of(weight: Tensor, kept: tuple[Tensor, Tensor]) -> Tensor:
    """Say which entries of a weight stay."""
    rows, columns = kept
    return (rows[:, None] & columns).reshape(weight.shape)


class Pulled(nn.Module):
    """A model, and which rows and columns of its weights are being pulled to zero; all of it is state.

    The regularizer is Σ λ_g ‖W_g‖ over the groups that one budget leaves out, and nothing over those that are to stay,
    so that large weights are not punished. Its proximal step is W_g ← max(0, 1 − λ_g / ‖W_g‖) W_g; with λ_g in
    proportion to ‖W_g‖ a group shrinks by the same factor in each step.

    Args:
        model: Trained.
        names: Names of the weights.
    """

    def __init__(self, model: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.model = model
        self.names = list(names)
        for number, weight in enumerate(self.weights().values()):
            self.register_buffer(f"rows_{number}", torch.ones(len(weight), dtype=torch.bool))
            self.register_buffer(f"columns_{number}", torch.ones(weight[0].numel(), dtype=torch.bool))

    def forward(self, *inputs: Tensor) -> Any:
        """Call the model."""
        return self.model(*inputs)

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the weights by name."""
        return {name: self.model.get_parameter(name) for name in self.names}

    def choose(self, costs: Mapping[str, float], free: Collection[str], budget: float) -> Kept:
        """Choose anew what is pulled; return what is to stay."""
        kept = choose_rows_and_columns(self.weights(), costs, free, budget)
        for number, name in enumerate(self.names):
            self.get_buffer(f"rows_{number}").copy_(kept[name][0])
            self.get_buffer(f"columns_{number}").copy_(kept[name][1])
        return kept

    @torch.no_grad()
    def pull(self, factor: float) -> None:
        """Take the proximal step.

        Args:
            factor: 1 − λ_g / ‖W_g‖.
        """
        for number, weight in enumerate(self.weights().values()):
            stays = mask_of(weight, (self.get_buffer(f"rows_{number}"), self.get_buffer(f"columns_{number}")))
            weight.mul_(torch.where(stays, 1.0, factor))


def _worth(weight: Tensor, cost: float, free: bool) -> tuple[Tensor, Tensor]:
    """Return the worth per cost of rows and columns; what stays in any case is worth infinity."""
    squares = weight.detach().double().square().flatten(1)
    total = squares.sum().clamp(min=1e-300)
    rows = squares.sum(1) / total / (squares.shape[1] * cost)
    columns = squares.sum(0) / total / (squares.shape[0] * cost)
    rows[rows.argmax() if free else slice(None)] = torch.inf
    columns[columns.argmax()] = torch.inf
    return rows, columns


def _cost(worth: Mapping[str, tuple[Tensor, Tensor]], threshold: float, costs: Mapping[str, float]) -> float:
    return sum(
        int((rows >= threshold).sum()) * int((columns >= threshold).sum()) * costs[name]
        for name, (rows, columns) in worth.items()
    )
