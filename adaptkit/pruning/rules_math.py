"""Rules of calls that compute: convolutions, products, normalizations, reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.pruning.contract import contract, elementwise, operand
from adaptkit.pruning.rules_shape import Result
from adaptkit.pruning.union_find import Ids
from adaptkit.pruning.values import Block, Call, Product, Value


def pointwise(call: Call) -> Result:
    """Elementwise operations: what is combined is pruned together."""
    value = elementwise(call.trace, call.values(), call.shape)
    return value if call.single else [value for _ in call.shapes]


def constant(call: Call) -> Result:
    """A new tensor that no parameter flows into."""
    return Value(call.shape)


def filled(call: Call) -> Result:
    """A new tensor of one value everywhere: it follows whatever it is combined with."""
    blocks = []
    for dim, size in enumerate(call.shape):
        ids = call.trace.sets.new(size)
        call.counts("size", ids, index=dim)
        blocks.append(Block((dim,), ids))
    return Value(call.shape, tuple(blocks))


def convolution(call: Call) -> Result:
    """Weight dimension 0 makes the output channels, dimension 1 takes the input channels of a group."""
    x, weight = (
        _only_channels(call, call["input"]),
        call.trace.fix(call["weight"], *range(2, len(call["weight"].shape))),
    )
    groups = call["groups"]
    if groups == 1:
        call.trace.together(x.line(1), weight.line(1))
        made = weight.line(0)
    else:
        made = _grouped(call, x.line(1), weight, groups)
    return _convolved(call, weight, made)


def transposed_convolution(call: Call) -> Result:
    """Weight dimension 0 takes the input channels, dimension 1 makes the output channels."""
    x, weight = (
        _only_channels(call, call["input"]),
        call.trace.fix(call["weight"], *range(2, len(call["weight"].shape))),
    )
    if call["groups"] > 1:
        x, weight = call.trace.fix(x, 1), call.trace.fix_all(weight)
    call.trace.together(x.line(1), weight.line(0))
    return _convolved(call, weight, weight.line(1))


def linear(call: Call) -> Result:
    """Product x Wᵀ + b over the last dimension."""
    x: Value = call["input"]
    rank = len(x.shape)
    letters = list(range(rank))
    blocks = contract(
        call.trace, [operand(x, letters), operand(call["weight"], [rank, rank - 1])], [*letters[:-1], rank]
    )
    return _plus_bias(call, Value(call.shape, blocks), call["bias"])


def addmm(call: Call) -> Result:
    """Product a b, plus a bias."""
    blocks = contract(call.trace, [operand(call["mat1"], [0, 1]), operand(call["mat2"], [1, 2])], [0, 2])
    return _plus_bias(call, Value(call.shape, blocks), call["self"])


def matmul(call: Call) -> Result:
    """A product of matrices, with broadcasting batch dimensions."""
    a, b = call.values()
    rank = max(len(a.shape), len(b.shape), 2)
    row, inner, column = rank - 2, rank, rank - 1
    left = [row, inner] if len(a.shape) > 1 else [inner]
    right = [inner, column] if len(b.shape) > 1 else [inner]
    batch_a = list(range(row - len(a.shape) + len(left), row))
    batch_b = list(range(row - len(b.shape) + len(right), row))
    out = sorted((set(batch_a) | set(batch_b) | set(left) | set(right)) - {inner})
    blocks = contract(call.trace, [operand(a, batch_a + left), operand(b, batch_b + right)], out)
    return Value(call.shape, blocks)


def einsum(call: Call) -> Result:
    """A product written with letters; an ellipsis is left alone."""
    equation = call["equation"].replace(" ", "")
    values: Sequence[Value] = call["tensors"]
    if "." in equation or "->" not in equation:
        for value in values:
            call.trace.fix_all(value)
        call.trace.note("op aten.einsum with '...' or without '->': dimensions left alone")
        return Value(call.shape)
    left, right = equation.split("->")
    names = sorted({letter for letter in left if letter != ","})
    number = {letter: place for place, letter in enumerate(names)}
    operands = [operand(v, [number[c] for c in spec]) for v, spec in zip(values, left.split(","), strict=True)]
    return Value(call.shape, contract(call.trace, operands, [number[letter] for letter in right]))


def attention(call: Call) -> Result:
    """Softmax(q kᵀ) v: heads may go, the head size of queries and keys stays (it is in the scale)."""
    query: Value = call["query"]
    key, value = (_for_queries(call[name], query) for name in ("key", "value"))
    rank = len(query.shape)
    batch, row, column, inner, last = list(range(rank - 2)), rank - 2, rank - 1, rank, rank + 1
    weights = contract(
        call.trace, [operand(query, [*batch, row, inner]), operand(key, [*batch, column, inner])], [*batch, row, column]
    )
    scores = call.trace.fix(Value((*call.shape[:-1], key.shape[-2]), weights), row, column)
    mask = call["attn_mask"]
    if mask is not None:
        scores = elementwise(call.trace, [scores, mask], scores.shape)
    operands = [operand(scores, [*batch, row, column]), operand(value, [*batch, column, last])]
    return Value(call.shape, contract(call.trace, operands, [*batch, row, last]))


def _for_queries(shared: Value, query: Value) -> Value:
    """Repeat heads of keys or values that several heads of queries share, so that these go together."""
    dim = len(query.shape) - 3
    if dim < 0 or shared.shape[dim] in (1, query.shape[dim]):  # a single head is broadcast
        return shared
    times = query.shape[dim] // shared.shape[dim]
    blocks = [
        Block(block.dims, np.repeat(block.ids, times, block.dims.index(dim))) if dim in block.dims else block
        for block in shared.blocks
    ]
    shape = (*shared.shape[:dim], query.shape[dim], *shared.shape[dim + 1 :])
    return Value(shape, tuple(blocks), shared.parameter)


def batch_norm(call: Call) -> Result:
    """Statistics and parameters of every channel."""
    lines = [call.arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    x: Value = call["input"]
    columns = [_column(value, len(x.shape)) for value in lines if value is not None]
    return elementwise(call.trace, [x, *columns], call.shape)


def prelu(call: Call) -> Result:
    """A slope for every channel, or one for all."""
    x: Value = call["self"]
    return elementwise(call.trace, [x, _column(call["weight"], len(x.shape))], call.shape)


def layer_norm(call: Call) -> Result:
    """Statistics over the last dimensions; features may go where there is one such dimension."""
    x: Value = call["input"]
    shape = call["normalized_shape"]
    if len(shape) > 1:
        x = call.trace.fix(x, *range(-len(shape), 0))
    last = x.block(-1)
    if last is not None and len(last.dims) > 1:
        x = call.trace.fix(x, -1)
    params = [value for value in (call["weight"], call.arguments.get("bias")) if value is not None]
    result = elementwise(call.trace, [x, *params], call.shape)
    ids = result.line(-1)
    if ids is not None:
        call.counts("normalized_shape", ids, index=0)
    return result


def group_norm(call: Call) -> Result:
    """Statistics over the channels of a group: whole groups may go, or single channels where there is one group."""
    x: Value = call["input"]
    params = [_column(value, len(x.shape)) for value in (call["weight"], call["bias"]) if value is not None]
    result = _only_channels(call, elementwise(call.trace, [x, *params], call.shape))
    ids = result.line(1)
    if ids is not None and call["num_groups"] > 1:
        parts = ids.reshape(call["num_groups"], -1)
        call.trace.sets.union(parts[:, :1], parts)
        call.counts("num_groups", parts[:, 0])
    return result


def reduction(call: Call) -> Result:
    """Mean, sum, maximum, norm over dimensions, which must stay whole."""
    if "other" in call.arguments:
        return pointwise(call)
    x: Value = call["self"]
    given = call.arguments.get("dim")
    chosen = range(len(x.shape)) if given is None else [given] if isinstance(given, int) else given
    dims = sorted({dim % max(len(x.shape), 1) for dim in chosen})
    x = call.trace.fix(x, *dims)
    if len(call.shape) == len(x.shape):
        result = Value(call.shape, x.blocks)
    else:
        blocks = [Block(tuple(d - sum(r < d for r in dims) for d in b.dims), b.ids) for b in x.blocks]
        result = Value(call.shape, tuple(blocks))
    return result if call.single else [result for _ in call.shapes]


def along_one(call: Call) -> Result:
    """Softmax and its like, along a dimension that must stay whole."""
    result = Value(call.shape, call.trace.fix(call["self"], call["dim"]).blocks)
    return result if call.single else [result for _ in call.shapes]


def spatial(call: Call) -> Result:
    """Pooling and resizing: only batch and channels come through."""
    first = call.values()[0]
    leading = len(first.shape) - _spatial_rank(call)
    value = call.trace.fix(first, *range(leading, len(first.shape)))
    result = Value(call.shape, value.blocks)
    return result if call.single else [result for _ in call.shapes]


def _spatial_rank(call: Call) -> int:
    # max_pool2d has two pixel dimensions
    digits = [int(letter) for letter in str(call.node.target) if letter in "123"]
    return digits[0]


def unknown(call: Call) -> Result:
    """An operator without a rule: everything that flows into it stays as it is."""
    labelled = [value for value in call.values() if value.blocks]
    for value in labelled:
        call.trace.fix_all(value)
    if any(not value.parameter or len(value.shape) > 1 for value in labelled):
        call.trace.note(f"op {call.node.target}: dimension left alone")
    results = [Value(shape) for shape in call.shapes]
    return (results or [Value(())])[0] if call.single else results


def _convolved(call: Call, weight: Value, made: Ids | None) -> Value:
    factors = tuple(line for line in (weight.line(0), weight.line(1)) if line is not None)
    sizes = [size for dim, size in enumerate(weight.shape) if dim > 1 or weight.line(dim) is None]
    moved = call["input"].shape if "transpose" in str(call.node.target) else call.shape
    rounds = [moved[0], *moved[2:]]
    call.trace.macs.append(Product(float(np.prod([float(size) for size in sizes + rounds])), factors))
    blocks = () if made is None else (Block((1,), made),)
    bias = call["bias"]
    result = Value(call.shape, blocks)
    return result if bias is None else elementwise(call.trace, [result, _column(bias, len(call.shape))], call.shape)


def _grouped(call: Call, taken: Ids | None, weight: Value, groups: int) -> Ids | None:
    """Prune whole groups, or the same position of every group: whatever leaves more choices."""
    trace, made = call.trace, weight.line(0)
    positions = weight.shape[1]
    if taken is None or made is None:
        for line in (taken, made, weight.line(1)):
            if line is not None:
                trace.sets.freeze(line)
        return None
    inputs, outputs = taken.reshape(groups, -1), made.reshape(groups, -1)
    if groups >= positions:
        trace.sets.union(inputs[:, :1], inputs)
        trace.sets.union(inputs[:, :1], outputs)
        if weight.line(1) is not None:
            trace.fix(weight, 1)
        call.counts("groups", inputs[:, 0])
    else:
        trace.sets.union(inputs[:1], inputs)
        trace.sets.union(outputs[:1], outputs)
        trace.together(inputs[0], weight.line(1))
    return made


def _only_channels(call: Call, x: Value) -> Value:
    """Fix every dimension but the second."""
    return call.trace.fix(x, 0, *range(2, len(x.shape)))


def _column(value: Value, rank: int) -> Value:
    """View a vector as the channels of a tensor of this rank."""
    if len(value.shape) != 1 or rank < 2:
        return value
    shape = tuple(value.shape[0] if dim == 1 else 1 for dim in range(rank))
    return Value(shape, tuple(Block((1,), block.ids) for block in value.blocks), value.parameter)


def _plus_bias(call: Call, value: Value, bias: Value | None) -> Value:
    return value if bias is None else elementwise(call.trace, [value, bias], call.shape)
