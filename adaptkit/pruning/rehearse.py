"""Trying a cut on a copy without weights: every call must come out as the ids predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from adaptkit.pruning.capture import CaptureError, Program, arguments_of, capture, hollow_copy, owner_of
from adaptkit.pruning.cut import Attribute, Kept, cut_tensors, follow_known
from adaptkit.pruning.values import Literal, Value

Bindings = Mapping[tuple[int, int], Attribute]
"""The attribute that feeds a literal, by program and place in its list of literals."""


@dataclass(frozen=True)
class Walked:
    """A program with the values of its nodes and the numbers in its calls that count elements."""

    program: Program
    values: Sequence[Any]
    literals: tuple[Literal, ...]


@dataclass(frozen=True)
class Failure:
    """Where a rehearsal went wrong.

    Args:
        path: The module.
        reason: What happened.
        clash: An attribute that would need two values at once.
    """

    path: str
    reason: str
    clash: Attribute | None = None


def count(literal: Literal, kept: Kept) -> int:
    """Return what a literal must be after the cut."""
    stays = kept(literal.ids)
    others = tuple(axis for axis in range(stays.ndim) if axis != literal.axis)
    return literal.sign * int(stays.any(axis=others).sum())


def new_numbers(walked: Sequence[Walked], bindings: Bindings, kept: Kept) -> dict[Attribute, int] | Failure:
    """Work out the new value of every bound attribute."""
    numbers: dict[Attribute, int] = {}
    for (program, place), attribute in bindings.items():
        number = abs(count(walked[program].literals[place], kept))
        if numbers.setdefault(attribute, number) != number:
            return Failure(attribute.module, f"{attribute.name} would need two values", attribute)
    return numbers


def follow(model: nn.Module, walked: Sequence[Walked], numbers: Mapping[Attribute, int], kept: Kept) -> None:
    """Set all attributes that hold sizes, known and bound."""
    counted = {(item.owner, item.argument): count(item, kept) for one in walked for item in one.literals}
    follow_known(model, counted)
    for attribute, number in numbers.items():
        attribute.write(model, number)


def rehearse(
    model: nn.Module,
    walked: Sequence[Walked],
    tensors: Mapping[str, Value],
    bindings: Bindings,
    kept: Kept,
) -> Failure | None:
    """Cut a hollow copy, capture it again and compare every call; None where all agree."""
    numbers = new_numbers(walked, bindings, kept)
    if isinstance(numbers, Failure):
        return numbers
    copied = hollow_copy(model)
    cut_tensors(copied, tensors, kept, hollow=True)
    follow(copied, walked, numbers, kept)
    for one in walked:
        try:
            again = capture(copied, one.program.inputs, one.program.training, one.program.root)
        except CaptureError as error:
            return Failure(error.path, str(error))
        failure = compare(one, again, kept)
        if failure is not None:
            return failure
    return None


def compare(walked: Walked, again: Program, kept: Kept) -> Failure | None:
    """Find the first call of a program captured after the cut that is not as predicted."""
    before = walked.program.nodes
    if len(before) != len(again.nodes):
        return Failure("", "the model takes another path after the cut")
    expected = {(item.node, item.argument, item.index): count(item, kept) for item in walked.literals}
    place = {node.name: index for index, node in enumerate(before)}
    place_again = {node.name: index for index, node in enumerate(again.nodes)}
    for index, (old, new) in enumerate(zip(before, again.nodes, strict=True)):
        shapes = [_shape(value, kept) for value in _listed(walked.values[index])]
        if old.op != "output" and (str(old.target) != str(new.target)) and old.op == "call_function":
            return Failure(owner_of(old), f"{old.target} became {new.target}")
        if old.op != "output" and shapes != _shapes(new):
            return Failure(owner_of(old), f"{old.target} gives {_shapes(new)}, expected {shapes}")
        if old.op == "call_function":
            wanted = _flat(arguments_of(old), place)
            wanted.update({(name, part): value for (node, name, part), value in expected.items() if node == index})
            if wanted != _flat(arguments_of(new), place_again):
                return Failure(owner_of(old), f"{old.target} is called with other numbers than expected")
    return None


def _flat(arguments: Mapping[str, Any], place: Mapping[str, int]) -> dict[tuple[str, int | None], Any]:
    """List what can be compared of a call: numbers, and which calls its inputs come from."""
    flat: dict[tuple[str, int | None], Any] = {}
    for name, value in arguments.items():
        parts = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
        for index, part in parts:
            if isinstance(part, (bool, int, float)):
                flat[name, index] = part
            elif isinstance(part, fx.Node):
                flat[name, index] = ("call", place[part.name])
    return flat


def _listed(value: Any) -> list[Value]:
    return value if isinstance(value, list) else [value]


def _shape(value: Value | None, kept: Kept) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(_length(value, dim, kept) for dim in range(len(value.shape)))


def _length(value: Value, dim: int, kept: Kept) -> int:
    block = value.block(dim)
    if block is None:
        return value.shape[dim]
    stays: NDArray[np.bool_] = kept(block.ids)
    axis = block.dims.index(dim)
    return int(stays.any(axis=tuple(other for other in range(stays.ndim) if other != axis)).sum())


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
    result = node.meta.get("val")
    parts = result if isinstance(result, (list, tuple)) else [result]
    return [tuple(int(size) for size in getattr(part, "shape", ())) for part in parts]
