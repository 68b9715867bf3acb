"""Which set each weight of a model is to lie in: the units that stay, from a sparsity or from a budget."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from adaptkit.errors import ModelError, TargetError
from adaptkit.profiling.macs import count_macs
from adaptkit.pruning.budget import share_budget
from adaptkit.pruning.channels import dependency_groups
from adaptkit.pruning.projections import ENTRIES, ConstraintSet, Kind, common_patterns, unit_count, unit_energies

_KERNEL = (3, 3)


@dataclass(frozen=True)
class Wanted:
    """What the weights are to become.

    Args:
        kind: What a unit is.
        cost: "sparsity": the same share of every weight is zero; "macs" or "params": one budget for all weights.
        share: Share of zeros for "sparsity", else the share of the cost that stays.
        patterns: How many patterns there may be, for `pattern`.
    """

    kind: Kind
    cost: str
    share: float
    patterns: int


def constraint_sets(
    model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, nn.Parameter], wanted: Wanted
) -> tuple[dict[str, ConstraintSet], list[str]]:
    """Say how many units of each weight stay.

    Args:
        model: Not changed.
        example_inputs: Inputs of one call; only their shapes count.
        weights: By name.
        wanted: What they are to become.

    Returns:
        The sets by name of the weight, and why weights were left out.

    Raises:
        TargetError: No weight has such units, or the sparsity cannot be made of them.
    """
    fitting, notes = _fitting(model, example_inputs, weights, wanted.kind)
    if not fitting:
        raise TargetError(f"no layer among the targets can be made sparse by {wanted.kind}")
    library = common_patterns(fitting.values(), wanted.patterns) if wanted.kind == "pattern" else None
    inside = ENTRIES / (_KERNEL[0] * _KERNEL[1]) if library is not None else 1.0
    if wanted.cost == "sparsity":
        kept = _uniform(fitting, wanted, inside)
    else:
        kept = _shared(model, example_inputs, fitting, wanted, library, inside)
    return {name: ConstraintSet(wanted.kind, count, library) for name, count in kept.items()}, notes


def _fitting(
    model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, nn.Parameter], kind: Kind
) -> tuple[dict[str, nn.Parameter], list[str]]:
    if kind == "element":
        return dict(weights), []
    notes = []
    fitting = dict(weights)
    if kind == "pattern":
        fitting = {name: w for name, w in weights.items() if tuple(w.shape[2:]) == _KERNEL}
        reason = "they have no 3 × 3 kernels"
    elif kind == "filter":
        free = free_outputs(model, example_inputs)
        fitting = {name: w for name, w in weights.items() if name in free}
        reason = "their outputs are outputs of the model, or must stay for other reasons"
    left = [name for name in weights if name not in fitting]
    if left:
        notes.append(f"left alone, since {reason}: {', '.join(left)}")
    return fitting, notes


def free_outputs(model: nn.Module, example_inputs: tuple[Any, ...]) -> set[str]:
    """Name the weights whose outputs (dimension 0) the model can do without, one by one.

    Raises:
        ModelError: torch.export cannot capture the model.
    """
    # The engine takes attention apart to find heads; here the model is to keep its modules.
    graph = dependency_groups(copy.deepcopy(model), example_inputs)
    return {piece.name for group in graph.groups for piece in group.slices if piece.dim == 0}


def macs_per_weight(
    model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, Tensor]
) -> dict[str, float]:
    """Say how often each weight is multiplied in a call with one sample.

    Raises:
        ModelError: A layer is not called, so that its MACs are unknown.
    """
    one = tuple(x[:1] for x in example_inputs)
    counted = count_macs(model, one).per_layer
    found = {}
    for name in weights:
        layer = name.rpartition(".")[0]
        total = sum(weight.numel() for other, weight in weights.items() if other.rpartition(".")[0] == layer)
        found[name] = counted.get(layer, 0) / total
        if not found[name]:
            raise ModelError(f"{layer} multiplies nothing that was counted: add it to ignore, or give sparsity")
    return found


def _uniform(weights: Mapping[str, nn.Parameter], wanted: Wanted, inside: float) -> dict[str, int]:
    share = (1 - wanted.share) / inside
    if share > 1 + 1e-9:
        raise TargetError(
            f"a sparsity of {wanted.share:g} was asked for; {wanted.kind} takes {1 - inside:.4f} at least, "
            "since each kernel keeps 4 of 9"
        )
    counts = {name: unit_count(weight.shape, wanted.kind) for name, weight in weights.items()}
    return {name: max(1, round(share * count)) for name, count in counts.items()}


def _shared(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    weights: Mapping[str, nn.Parameter],
    wanted: Wanted,
    library: Tensor | None,
    inside: float,
) -> dict[str, int]:
    each = macs_per_weight(model, example_inputs, weights) if wanted.cost == "macs" else dict.fromkeys(weights, 1.0)
    energies = {name: unit_energies(weight, wanted.kind, library) for name, weight in weights.items()}
    costs = {name: each[name] * inside * weight.numel() / energies[name].numel() for name, weight in weights.items()}
    whole = sum(each[name] * weight.numel() for name, weight in weights.items())
    return share_budget(energies, costs, wanted.share * whole)
