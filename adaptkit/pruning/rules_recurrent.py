"""Rules of recurrent layers, whose gates share the hidden units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.pruning.rules_math import unknown
from adaptkit.pruning.rules_shape import Result
from adaptkit.pruning.union_find import Ids
from adaptkit.pruning.values import Block, Call, Product, Trace, Value


def recurrent(call: Call) -> Result:
    """LSTM, GRU and plain recurrence over a sequence: one hidden size for all layers, directions and gates."""
    if "batch_sizes" in call.arguments:
        return unknown(call)
    params: Sequence[Value] = call["params"]
    each = 4 if call["has_biases"] else 2
    ways = 2 if call["bidirectional"] else 1
    if len(params) != each * ways * call["num_layers"]:
        return unknown(call)  # projected states, which have a size of their own
    layers = [params[start : start + each] for start in range(0, len(params), each)]
    hidden = call.trace.together(*_states(call), *(line for weights in layers for line in _made(call.trace, weights)))
    both = None if hidden is None else np.concatenate([hidden] * ways)
    taken = _features(call)
    for number, weights in enumerate(layers):
        call.trace.together(taken if number < ways else both, weights[0].line(1))
        _count(call, weights)
    return [_result(shape, line) for shape, line in zip(call.shapes, (both, hidden, hidden), strict=False)]


def cell(call: Call) -> Result:
    """One step of a recurrence."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    weights = [call[name] for name in names if call[name] is not None]
    hidden = call.trace.together(*_states(call), *_made(call.trace, weights))
    call.trace.together(_features(call), weights[0].line(1))
    _count(call, weights)
    results = [_result(shape, hidden) for shape in call.shapes]
    return results[0] if call.single else results


def _states(call: Call) -> list[Ids | None]:
    given = call["hx"]
    return [state.line(-1) for state in (given if isinstance(given, (list, tuple)) else [given])]


def _features(call: Call) -> Ids | None:
    x: Value = call["input"]
    return call.trace.fix(x, *range(len(x.shape) - 1)).line(-1)


def _made(trace: Trace, weights: Sequence[Value]) -> list[Ids | None]:
    """List the lines that index hidden units: those of every gate, and the columns that take the state."""
    gates = weights[0].shape[0] // weights[1].shape[1]
    lines: list[Ids | None] = [weights[1].line(1)]
    for value in weights:
        line = value.line(0)
        lines += [None] if line is None else list(line.reshape(gates, -1))
    return lines


def _count(call: Call, weights: Sequence[Value]) -> None:
    steps = float(np.prod(call["input"].shape[:-1]))
    for value in weights[:2]:
        factors = tuple(block.ids for block in value.blocks)
        sizes = [size for dim, size in enumerate(value.shape) if value.line(dim) is None]
        call.trace.macs.append(Product(steps * float(np.prod(sizes)), factors))


def _result(shape: tuple[int, ...], line: Ids | None) -> Value:
    return Value(shape, () if line is None else (Block((len(shape) - 1,), line),))
