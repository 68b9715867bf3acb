"""Which set each weight of a model is to lie in: the units that stay, from a sparsity or from a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from adaptkit.errors import ModelError, TargetError
from adaptkit.profiling.macs import count_macs
from adaptkit.pruning.attention import attention_uses
from adaptkit.pruning.budget import share_budget
from adaptkit.pruning.capture import copy_of
from adaptkit.pruning.channels import dependency_groups
from adaptkit.pruning.layers import output_dims
from adaptkit.pruning.masks import zeros
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
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    weights: Mapping[str, nn.Parameter],
    wanted: Wanted,
    left: Mapping[str, nn.Parameter] | None = None,
) -> tuple[dict[str, ConstraintSet], list[str]]:
    """Say how many units of each weight stay; zeros that are to stay are in no set.

    Args:
        model: Not changed.
        example_inputs: Inputs of one call; only their shapes count.
        weights: By name.
        wanted: What they are to become.
        left: Further weights that stay whole, and that a budget counts.

    Returns:
        The sets by name of the weight, and why weights were left out.

    Raises:
        TargetError: No weight has such units, or the sparsity or the budget cannot be made of them.
    """
    fitting, notes = _fitting(model, example_inputs, weights, wanted.kind)
    if not fitting:
        raise TargetError(f"no layer among the targets can be made sparse by {wanted.kind}")
    library = common_patterns(fitting.values(), wanted.patterns) if wanted.kind == "pattern" else None
    if wanted.cost == "sparsity":
        kept = _uniform(fitting, wanted)
    else:
        kept = _shared(model, example_inputs, fitting, {**(left or {}), **weights}, wanted, library)
    allowed = {name: ~zero for name, zero in zeros(model).items() if zero.any()}
    return {name: ConstraintSet(wanted.kind, kept[name], library, allowed.get(name)) for name in kept}, notes


def _fitting(
    model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, nn.Parameter], kind: Kind
) -> tuple[dict[str, nn.Parameter], list[str]]:
    if kind == "element":
        return dict(weights), []
    notes = []
    # Units are numbered as the weight of a plain layer has them: out × in.
    turned = weights.keys() & output_dims(model).keys()
    if turned:
        notes.append(f"left alone, since they are transposed convolutions: {', '.join(sorted(turned))}")
    fitting = plain = {name: w for name, w in weights.items() if name not in turned}
    if kind == "pattern":
        fitting = {name: w for name, w in fitting.items() if tuple(w.shape[2:]) == _KERNEL}
        reason = "they have no 3 × 3 kernels"
    elif kind == "filter":
        free = free_outputs(model, example_inputs)
        fitting = {name: w for name, w in fitting.items() if name in free}
        reason = "their outputs are outputs of the model, or must stay for other reasons"
    left = [name for name in plain if name not in fitting]
    if left:
        notes.append(f"left alone, since {reason}: {', '.join(left)}")
    return fitting, notes


def free_outputs(model: nn.Module, example_inputs: tuple[Any, ...]) -> set[str]:
    """Name the weights whose outputs the model can do without, one by one.

    Raises:
        ModelError: torch.export cannot capture the model.
    """
    # The engine takes attention apart to find heads; here the model is to keep its modules.
    graph = dependency_groups(copy_of(model), example_inputs)
    return {piece.name for group in graph.groups for piece in group.slices if piece.makes}


def macs_per_weight(
    model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, Tensor]
) -> dict[str, float]:
    """Say how often each weight is multiplied in a call with one sample.

    Raises:
        ModelError: A layer is not called, so that its MACs are unknown.
    """
    found = _uses(model, example_inputs, weights)
    _require_counted(found, weights)
    return found


def _require_counted(uses: Mapping[str, float], names: Iterable[str]) -> None:
    for name in names:
        if not uses[name]:
            layer = name.rpartition(".")[0]
            raise ModelError(f"{layer} multiplies nothing that was counted: add it to ignore, or give params")


def _uses(model: nn.Module, example_inputs: tuple[Any, ...], weights: Mapping[str, Tensor]) -> dict[str, float]:
    one = tuple(x[:1] for x in example_inputs)
    counted = count_macs(model, one).per_layer
    in_attention = attention_uses(model, one)
    found = {}
    for name in weights:
        layer = name.rpartition(".")[0]
        total = sum(weight.numel() for other, weight in weights.items() if other.rpartition(".")[0] == layer)
        found[name] = in_attention.get(name, counted.get(layer, 0) / total)
    return found


def _inside(kind: Kind) -> float:
    """Return the share of its weights that a unit keeps."""
    return ENTRIES / (_KERNEL[0] * _KERNEL[1]) if kind == "pattern" else 1.0


def _uniform(weights: Mapping[str, nn.Parameter], wanted: Wanted) -> dict[str, int]:
    inside = _inside(wanted.kind)
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
    every: Mapping[str, nn.Parameter],
    wanted: Wanted,
    library: Tensor | None,
) -> dict[str, int]:
    """Share a budget of every target among some weights, after those that stay whole have taken their part."""
    inside = _inside(wanted.kind)
    left = [name for name in every if name not in weights]
    each = dict.fromkeys(every, 1.0)
    if wanted.cost == "macs":
        each = _uses(model, example_inputs, every)
        _require_counted(each, weights)
    energies = {name: unit_energies(weight, wanted.kind, library) for name, weight in weights.items()}
    costs = {name: each[name] * inside * weight.numel() / energies[name].numel() for name, weight in weights.items()}
    whole = sum(each[name] * weight.numel() for name, weight in every.items())
    fixed = sum(each[name] * every[name].numel() for name in left)
    budget = wanted.share * whole - fixed
    if (least := sum(costs.values())) > budget * (1 + 1e-9):
        raise TargetError(
            f"{wanted.cost}={wanted.share:g} was asked for; {wanted.kind} reaches {(least + fixed) / whole:.4f} at "
            f"least, since every weight keeps something, and {len(left)} of {len(every)} stay whole"
        )
    return share_budget(energies, costs, budget)
