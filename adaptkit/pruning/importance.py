"""How much each unit of a group matters: a score per unit, higher is more important."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.pruning.groups import Group, Slice

Tensors = Mapping[str, Tensor]


def per_unit(values: Tensor, piece: Slice) -> Tensor:
    """Sum a tensor over everything that belongs to each unit.

    Args:
        values: One number for every element of the parameter.
        piece: Which indices of which dimension each unit holds.

    Returns:
        A vector with an entry per unit.

    Example:
        >>> import numpy as np
        >>> per_unit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Slice("w", 1, np.array([[0], [1]])))
        tensor([4., 6.])
    """
    rows = values.movedim(piece.dim, 0).reshape(values.shape[piece.dim], -1).sum(1)
    return rows[torch.from_numpy(piece.indices).to(rows.device)].sum(1)


def l1(group: Group, tensors: Tensors) -> Tensor:
    """Σ |w| over the weights that make the unit's channels (Li et al. 2017, "Pruning filters", section 3.1)."""
    made = [p for p in group.slices if p.name in tensors and p.dim == 0 and tensors[p.name].dim() > 1]
    return _total(group, [per_unit(tensors[p.name].abs(), p) for p in made or _held(group, tensors)], tensors)


def group_l2(group: Group, tensors: Tensors) -> Tensor:
    """sqrt(Σ w²) over every parameter that goes with the unit, consumers included (Fang et al. 2023, "DepGraph")."""
    return _total(group, [per_unit(tensors[p.name].square(), p) for p in _held(group, tensors)], tensors).sqrt()


def bn_scale(group: Group, tensors: Tensors, scales: frozenset[str]) -> Tensor:
    """Σ |γ| of the unit's normalizations (Liu et al. 2017, "Network slimming", section 3); L2 where there is none.

    Args:
        group: The group.
        tensors: Parameters by name.
        scales: Which of them are scales of normalizations.
    """
    found = [p for p in group.slices if p.name in scales]
    if not found:
        return group_l2(group, tensors)
    return _total(group, [per_unit(tensors[p.name].abs(), p) for p in found], tensors)


def taylor(group: Group, products: list[Tensors]) -> Tensor:
    """Mean over batches of (Σ w ∂L/∂w)² over the unit's parameters (Molchanov et al. 2019, equation 8).

    Args:
        group: The group.
        products: For each batch, w ∂L/∂w of every parameter.
    """
    squares = [_total(group, [per_unit(one[p.name], p) for p in _held(group, one)], one).square() for one in products]
    return torch.stack(squares).mean(0)


def random(group: Group, seed: int) -> Tensor:
    """Uniform numbers, the same for the same seed."""
    return torch.rand(group.size, generator=torch.Generator().manual_seed(seed))


def normalized(scores: Tensor) -> Tensor:
    """Divide by the mean of the group, so that groups of large and of small weights can be ranked together.

    Example:
        >>> normalized(torch.tensor([1.0, 3.0]))
        tensor([0.5000, 1.5000])
    """
    mean = scores.mean()
    return scores / mean if mean > 0 else torch.ones_like(scores)


def norm_scales(model: nn.Module) -> frozenset[str]:
    """Name the scales of all batch and group normalizations."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    return frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds))


def taylor_products(
    model: nn.Module, data: BatchSource, loss: Callable[[Any, Tensor], Tensor], batches: int = 16
) -> list[Tensors]:
    """Run batches forward and back in evaluation mode; return w ∂L/∂w of every parameter for each.

    Args:
        model: Left as it was.
        data: Inputs and targets.
        loss: Maps (output, target) to a scalar.
        batches: How many batches are used at most.
    """
    found: list[Tensors] = []
    with evaluating(model):
        for number, (x, y) in enumerate(as_batches(data)):
            if number == batches:
                break
            with torch.enable_grad():
                value = loss(first_output(model(x)), y)
                named = {name: p for name, p in model.named_parameters() if p.requires_grad}
                gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            pairs = zip(named.items(), gradients, strict=True)
            found.append({name: (p * g).detach() for (name, p), g in pairs if g is not None})
    return found


def _held(group: Group, tensors: Tensors) -> list[Slice]:
    return [piece for piece in group.slices if piece.name in tensors]


def _total(group: Group, parts: list[Tensor], tensors: Tensors) -> Tensor:
    like = next(iter(tensors.values()))
    return sum(parts, like.new_zeros(group.size))
