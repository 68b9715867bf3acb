"""How much each unit of a group matters: a score per unit, higher is more important.

What is measured on data first (gradients, curvature, activations) comes from `importance_data`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

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


def rows_of(values: Tensor, piece: Slice) -> Tensor:
    """Gather all elements that belong to each unit, as units × elements.

    Example:
        >>> import numpy as np
        >>> rows_of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Slice("w", 1, np.array([[0], [1]])))
        tensor([[1., 3.],
                [2., 4.]])
    """
    indices = torch.from_numpy(np.ascontiguousarray(piece.indices)).to(values.device)
    return values.movedim(piece.dim, 0)[indices].flatten(1)


def l1(group: Group, tensors: Tensors) -> Tensor:
    """Σ |w| over the weights that make the unit's channels (Li et al. 2017, "Pruning filters", section 3.1)."""
    pieces = _made(group, tensors) or _held(group, tensors)
    return _total(group, [per_unit(tensors[p.name].abs(), p) for p in pieces], tensors)


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


def lamp(group: Group, tensors: Tensors) -> Tensor:
    """‖u‖² / Σ ‖v‖² over the units v of the group that are no smaller than u (Lee et al. 2021, "LAMP", equation 4).

    The paper scores single weights of a layer; here the units of a group take their place. Scores of different groups
    can be compared, and the largest unit of every group scores 1, so that no group goes whole.

    Example:
        >>> import numpy as np
        >>> rows = Group("w", (Slice("w", 0, np.array([[0], [1], [2]])),), 3)
        >>> lamp(rows, {"w": torch.tensor([[1.0], [3.0], [2.0]]).sqrt()})
        tensor([0.1667, 1.0000, 0.4000])
    """
    squares = group_l2(group, tensors).square()
    ascending = squares.argsort()
    rest = squares[ascending].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[ascending] = squares[ascending] / rest.clamp(min=torch.finfo(squares.dtype).tiny)
    return scores


def fpgm(group: Group, tensors: Tensors) -> Tensor:
    """Σ over all units v of ‖F_u - F_v‖, F the weights that make the channels (He et al. 2019, "FPGM", equation 8).

    The least of these is the geometric median, which the others can stand in for.

    Example:
        >>> import numpy as np
        >>> rows = Group("w", (Slice("w", 0, np.array([[0], [1], [2]])),), 3)
        >>> fpgm(rows, {"w": torch.tensor([[0.0], [1.0], [5.0]])})
        tensor([6., 5., 9.])
    """
    pieces = _made(group, tensors) or _held(group, tensors)
    filters = torch.cat([rows_of(tensors[p.name], p) for p in pieces], 1)
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def obd(group: Group, tensors: Tensors, curvature: Tensors) -> Tensor:
    """½ Σ h w² over every parameter that goes with the unit (LeCun et al. 1990, "Optimal brain damage", equation 4).

    Args:
        group: The group.
        tensors: Parameters by name.
        curvature: ∂²L/∂w² of every element of every parameter.
    """
    pieces = _held(group, curvature)
    return _total(group, [per_unit(0.5 * curvature[p.name] * tensors[p.name].square(), p) for p in pieces], tensors)


def activation(group: Group, means: Tensors, tensors: Tensors) -> Tensor:
    """Mean |x| of the unit's channels as the layers that take them see them (Molchanov et al. 2017, section 2.2).

    Where no layer takes them as they are (only grouped convolutions do), the L2 norm of the group stands in.

    Args:
        group: The group.
        means: For the weight of every layer, mean |x| of each channel that the layer is given.
        tensors: Parameters by name.
    """
    taken = [p for p in group.slices if p.dim == 1 and not p.makes and p.name in means]
    if not taken:
        return group_l2(group, tensors)
    parts = [per_unit(means[p.name], Slice(p.name, 0, p.indices)) / p.indices.shape[1] for p in taken]
    return _total(group, parts, tensors) / len(parts)


def taylor(group: Group, products: list[Tensors]) -> Tensor:
    """Mean over batches of (Σ w ∂L/∂w)² over the unit's parameters (Molchanov et al. 2019, equation 8).

    Args:
        group: The group.
        products: For each batch, w ∂L/∂w of every parameter.
    """
    squares = [_total(group, [per_unit(one[p.name], p) for p in _held(group, one)], one).square() for one in products]
    return torch.stack(squares).mean(0)


def random(group: Group, generator: torch.Generator) -> Tensor:
    """Uniform numbers, the same from the same state of the generator."""
    return torch.rand(group.size, generator=generator)


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


def _held(group: Group, tensors: Tensors) -> list[Slice]:
    return [piece for piece in group.slices if piece.name in tensors]


def _made(group: Group, tensors: Tensors) -> list[Slice]:
    """List the weights that make the unit's channels."""
    return [piece for piece in _held(group, tensors) if piece.makes and tensors[piece.name].dim() > 1]


def _total(group: Group, parts: list[Tensor], tensors: Tensors) -> Tensor:
    like = next(iter(tensors.values()))
    return sum(parts, like.new_zeros(group.size))
