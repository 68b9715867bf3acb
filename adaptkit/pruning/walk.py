"""Walking over captured programs: every call's rule once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import fx, nn

from adaptkit.pruning.capture import Program
from adaptkit.pruning.rules import rule_for
from adaptkit.pruning.rules_math import unknown
from adaptkit.pruning.rules_shape import Result
from adaptkit.pruning.union_find import Ids, UnionFind
from adaptkit.pruning.values import Block, Call, Trace, Value, make_call


def tensor_values(sets: UnionFind, model: nn.Module) -> dict[str, Value]:
    """Give every dimension of every parameter and buffer ids of its own; tied tensors share theirs."""
    made: dict[int, Value] = {}
    values: dict[str, Value] = {}
    for name, tensor in all_tensors(model):
        if id(tensor) not in made:
            shape = tuple(tensor.shape)
            blocks = tuple(Block((dim,), sets.new(size)) for dim, size in enumerate(shape) if size > 1)
            made[id(tensor)] = Value(shape, blocks, parameter=True)
        values[name] = made[id(tensor)]
    return values


def all_tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """List parameters and buffers by name, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def walk(trace: Trace, program: Program, tensors: dict[str, Value]) -> list[Any]:
    """Apply the rules; return the value (or list of values, or None) of every node."""
    values: dict[str, Any] = {}
    for index, node in enumerate(program.nodes):
        values[node.name] = _value(trace, program, node, index, values, tensors)
    return [values[node.name] for node in program.nodes]


def _value(
    trace: Trace, program: Program, node: fx.Node, index: int, values: dict[str, Any], tensors: dict[str, Value]
) -> Any:
    if node.op == "output":
        for source in node.all_input_nodes:
            _protect(trace, values[source.name])
        return None
    if node.op != "call_function":
        if node.name in program.tensors:
            return tensors[program.tensors[node.name]]
        return Value(tuple(getattr(node.meta.get("val"), "shape", ())))
    result = _followed(trace, make_call(trace, node, index, values))
    return [_slim(trace, part) for part in result] if isinstance(result, list) else _slim(trace, result)


def _followed(trace: Trace, call: Call) -> Result:
    """Apply the rule of a call; where the rule does not fit it, leave alone what flows into it, as without a rule."""
    literals, macs = len(trace.literals), len(trace.macs)
    try:
        return rule_for(call.node.target)(call)
    except Exception:  # the models that users have are more than the rules foresee
        del trace.literals[literals:], trace.macs[macs:]
        return unknown(call)


def _protect(trace: Trace, value: Any) -> None:
    for part in value if isinstance(value, list) else [value]:
        trace.fix_all(part)


def _slim(trace: Trace, value: Value) -> Value:
    """A dimension of size 1 cannot be pruned, so it carries nothing."""
    return trace.fix(value, *(dim for dim, size in enumerate(value.shape) if size == 1 and value.block(dim)))


def make_rectangular(trace: Trace) -> None:
    """Choose for each joint block the axis along which slabs may go: the one that leaves most of them."""
    for ids in trace.rectangles:
        counts = [_slabs(trace.sets, ids, axis) for axis in range(ids.ndim)]
        axis = int(np.argmax(counts))
        lines = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
        trace.sets.union(lines[:, :1], lines)


def _slabs(sets: UnionFind, ids: Ids, axis: int) -> int:
    """Count the sets of slabs along an axis, were each slab joined."""
    trial = UnionFind()
    lines = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
    _, places = np.unique(sets.roots()[lines], return_inverse=True)
    rows = trial.new(len(lines))
    others = trial.new(int(places.max()) + 1)
    trial.union(rows[:, None], others[places.reshape(lines.shape)])
    return len(np.unique(trial.roots()[rows]))
