"""Sparse training: units that matter little are driven towards zero before they are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptkit.pruning.groups import Group
from adaptkit.pruning.importance import Tensors, per_unit
from adaptkit.training.losses import StepLoss


def group_lasso(groups: Sequence[Group], tensors: Tensors) -> Tensor:
    """Σ over groups √d Σ over units ‖u‖₂, d the number of parameters of a unit (Yuan & Lin 2006, equation 2.1).

    A unit holds every slice that goes with it, consumers included (Fang et al. 2023, "DepGraph", equation 9), so that
    what the penalty takes to zero can be cut without a change of the outputs.

    Args:
        groups: Of the engine.
        tensors: Parameters by name.

    Example:
        >>> import numpy as np
        >>> from adaptkit.pruning.groups import Slice
        >>> rows = Group("w", (Slice("w", 0, np.array([[0], [1]])),), 2)
        >>> penalty = group_lasso([rows], {"w": torch.tensor([[3.0, 4.0], [0.0, 0.0]])})
        >>> round(float(penalty) / math.sqrt(2), 2)
        5.0
    """
    total = next(iter(tensors.values())).new_zeros(())
    for group in groups:
        held = [piece for piece in group.slices if piece.name in tensors]
        if held:
            squares = torch.stack([per_unit(tensors[piece.name].square(), piece) for piece in held]).sum(0)
            size = sum(tensors[p.name].numel() // tensors[p.name].shape[p.dim] * p.indices.shape[1] for p in held)
            # the root has no derivative at 0
            total = total + math.sqrt(size) * (squares + torch.finfo(squares.dtype).eps).sqrt().sum()
    return total


def with_group_lasso(base: StepLoss, groups: Sequence[Group], strength: float) -> StepLoss:
    """Add the penalty to a training loss.

    Args:
        base: The loss to add to.
        groups: Of the engine.
        strength: Factor of the penalty.
    """

    def step_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss, output = base(model, x, y)
        return loss + strength * group_lasso(groups, dict(model.named_parameters())), output

    return step_loss
