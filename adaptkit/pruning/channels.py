"""The dependency engine: which channels of a model can be removed, and what goes with each.

The forward pass is captured as ATen calls. Every channel of every parameter dimension gets an id; a rule for each
operator says how ids move from inputs to outputs and which become one (design: one table of rules, one union-find, no
architecture by name). Whatever shares an id is pruned together. What flows into an output of the model, or through an
operator without a rule, is not prunable.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adaptkit.errors import ModelError, UnsupportedLayer
from adaptkit.modes import evaluating
from adaptkit.pruning.attention import split_all_attention
from adaptkit.pruning.binding import Search
from adaptkit.pruning.capture import CaptureError, Program, at_least_two, capture, hollow_copy
from adaptkit.pruning.cut import Kept, cut_tensors
from adaptkit.pruning.groups import Group, Lengths, Selection, Units, weight_products
from adaptkit.pruning.parts import capture_parts
from adaptkit.pruning.rehearse import Bindings, Failure, Walked, follow, new_numbers, rehearse
from adaptkit.pruning.values import Product, Trace, Value
from adaptkit.pruning.walk import make_rectangular, tensor_values, walk

__all__ = ["ChannelGraph", "Group", "dependency_groups", "remove"]


@dataclass(frozen=True)
class ChannelGraph:
    """What can be removed of a model; true until the model is cut.

    Args:
        units: The groups, and to which each channel belongs.
        notes: What was left alone, and why.
        inputs: The example inputs.
        tensors: Ids of the parameters and buffers.
        walked: The captured programs.
        bindings: Attributes that follow.
        macs: Multiply-accumulates of one call, and elements of all parameters, as functions of what is kept.
        parameters: See `macs`.
    """

    units: Units
    notes: tuple[str, ...]
    inputs: tuple[Any, ...]
    tensors: Mapping[str, Value]
    walked: tuple[Walked, ...]
    bindings: Bindings
    macs: Lengths
    parameters: Lengths

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order of the model."""
        return self.units.groups

    def lengths(self, products: list[Product]) -> Lengths:
        """Prepare products of dimensions for counting."""
        return Lengths(self.units, products)


def dependency_groups(model: nn.Module, example_inputs: tuple[Any, ...]) -> ChannelGraph:
    """Find the groups of channels that can be removed.

    nn.MultiheadAttention modules are first replaced, in place, by an equivalent whose heads can be removed. Where a
    parameter is only used in training (auxiliary heads), the training mode is captured too.

    Args:
        model: Left in its mode.
        example_inputs: Inputs of one call, batch first.

    Raises:
        ModelError: torch.export cannot capture the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> graph = dependency_groups(net, (torch.zeros(2, 3, 8, 8),))
        >>> [(group.label, group.size) for group in graph.groups]
        [('0', 8)]
        >>> [(piece.name, piece.dim) for piece in graph.groups[0].slices]
        [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """
    split_all_attention(model)
    inputs = at_least_two(example_inputs)
    trace = Trace()
    tensors = tensor_values(trace.sets, model)
    programs, shared = _programs(model, inputs, trace)
    walked, macs = [], []
    for program in programs:
        values = walk(trace, program, tensors)
        walked.append(Walked(program, values, tuple(trace.literals)))
        macs.append(list(trace.macs))
        trace.literals.clear()
        trace.macs.clear()
    _freeze_unused(trace, programs, tensors, shared)
    make_rectangular(trace)
    search = Search(model, walked, tensors, trace)
    units = search.run()
    if any(program.root for program in programs):
        _require_following(model, inputs, tensors, units, search, walked)
    names = [name for name, _ in model.named_parameters()]
    return ChannelGraph(
        units,
        tuple(trace.notes),
        inputs,
        tensors,
        tuple(walked),
        dict(search.bindings),
        Lengths(
            units,
            [product for one, products in zip(programs, macs, strict=True) if not one.training for product in products],
        ),
        Lengths(units, weight_products(tensors, names)),
    )


def remove(model: nn.Module, graph: ChannelGraph, selection: Selection) -> nn.Module:
    """Remove units: cut parameters, buffers and attributes in place.

    The cut is rehearsed on a copy without weights first, every call of which must come out as predicted, so that a
    model is either cut right or not touched. The graph does not fit the model afterwards.

    Args:
        model: The model that the graph was made from.
        graph: From `dependency_groups`.
        selection: Numbers of the units to remove, by number of the group.

    Returns:
        The same model.

    Raises:
        UnsupportedLayer: The model does not follow the cut.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> graph = dependency_groups(net, (torch.zeros(2, 3, 8, 8),))
        >>> remove(net, graph, {0: [1, 5]})[0]
        Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1))
    """
    chosen = {number: sorted(set(units)) for number, units in selection.items()}
    for number, units in chosen.items():
        group = graph.groups[number]
        if len(units) >= group.size:
            raise UnsupportedLayer(
                f"{group.label}: asked to remove all of its {group.size} channels; keep at least one"
            )
    removed = graph.units.removed(chosen)

    def kept(ids: Any) -> Any:
        return graph.units.kept(removed, ids)

    failure = rehearse(model, graph.walked, graph.tensors, graph.bindings, kept)
    failure = failure or _cut(model, graph.tensors, graph.walked, graph.bindings, kept)
    if failure is not None:
        raise UnsupportedLayer(f"the model does not follow this cut: {failure.reason}. Add the layer to `ignore`")
    return model


def _programs(model: nn.Module, inputs: tuple[Any, ...], trace: Trace) -> tuple[list[Program], set[str]]:
    """Capture the evaluation mode, and the training mode where only that reads some parameters.

    A model that cannot be captured whole is captured in parts. Returned are also the names of tensors that must stay.
    """
    hollow = hollow_copy(model)
    try:
        program = capture(hollow, inputs, training=False)
    except CaptureError as error:
        programs, shared = capture_parts(model, hollow, inputs)
        if not programs:
            raise
        parts = ", ".join(one.root for one in programs)
        trace.note(f"{error}; captured in parts, whose outputs are left alone: {parts}")
        return programs, shared
    unused = program.unused()
    if not any(name in unused for name, parameter in model.named_parameters()):
        return [program], set()
    return [program, capture(hollow, inputs, training=True)], set()


def _require_following(
    model: nn.Module,
    inputs: tuple[Any, ...],
    tensors: Mapping[str, Value],
    units: Units,
    search: Search,
    walked: list[Walked],
) -> None:
    """Cut a copy and run it: what stands between captured parts may read sizes too."""
    removed = units.removed({number: [0] for number in range(len(units.groups))})
    trial = copy.deepcopy(model)
    _cut(trial, tensors, walked, search.bindings, lambda ids: units.kept(removed, ids))
    try:
        with evaluating(trial), torch.no_grad():
            trial(*inputs)
    except Exception as error:
        raise ModelError(f"the code outside the parts that were captured fails when they are cut: {error}") from error


def _cut(
    model: nn.Module, tensors: Mapping[str, Value], walked: Sequence[Walked], bindings: Bindings, kept: Kept
) -> Failure | None:
    numbers = new_numbers(walked, bindings, kept)
    if isinstance(numbers, Failure):
        return numbers
    cut_tensors(model, tensors, kept)
    follow(model, walked, numbers, kept)
    return None


def _freeze_unused(trace: Trace, programs: list[Program], tensors: Mapping[str, Value], shared: set[str]) -> None:
    used = {name for program in programs for name in set(program.tensors.values()) - program.unused()} - shared
    ids = {id(tensors[name]) for name in used}
    for value in tensors.values():
        if id(value) not in ids:
            for block in value.blocks:
                trace.sets.freeze(block.ids)
