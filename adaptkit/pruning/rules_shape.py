"""Rules of calls that move elements about: views, slices, concatenation, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.pruning.contract import elementwise
from adaptkit.pruning.reshaping import reshaped
from adaptkit.pruning.union_find import Ids
from adaptkit.pruning.values import Block, Call, Value

Result = Value | list[Value]


def reshape(call: Call) -> Result:
    """View, reshape, flatten, unflatten, squeeze: the same elements in a new shape."""
    result = reshaped(call.trace, call["self"], call.shape)
    for name in ("size", "shape", "sizes"):
        if name in call.arguments:
            _count_sizes(call, name, result, first=_unflattened(call) if name == "sizes" else 0)
    return result


def expand(call: Call) -> Result:
    """Repeat dimensions of size 1; the others keep their ids."""
    x: Value = call["self"]
    extra = len(call.shape) - len(x.shape)
    blocks = tuple(Block(tuple(dim + extra for dim in block.dims), block.ids) for block in x.blocks)
    result = Value(call.shape, blocks)
    if "size" in call.arguments:
        _count_sizes(call, "size", result, first=0)
    return result


def permute(call: Call) -> Result:
    """Put the dimensions into another order."""
    x: Value = call["self"]
    return _permuted(x, [dim % len(x.shape) for dim in call["dims"]])


def transpose(call: Call) -> Result:
    """Swap two dimensions."""
    x: Value = call["self"]
    order = list(range(len(x.shape)))
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    first, second = (
        (call.arguments.get(name, place) % len(order) for place, name in enumerate(names)) if order else (0, 0)
    )
    if order:
        order[first], order[second] = order[second], order[first]
    return _permuted(x, order)


def slice_(call: Call) -> Result:
    """Take a range of a dimension."""
    x: Value = call["self"]
    if not x.shape:
        return x
    dim = call["dim"] % len(x.shape)
    size = x.shape[dim]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    if (start, stop, step) == (0, size, 1) or x.block(dim) is None:
        return Value(call.shape, x.blocks, x.parameter)
    ids = x.line(dim)
    if step != 1 or ids is None:
        return Value(call.shape, call.trace.fix(x, dim).blocks, x.parameter)
    for name, bound in (("start", start), ("end", stop)):
        given = call[name]
        if given is None or given == 0 or given > size:
            continue
        call.counts(name, ids[bound:] if given < 0 else ids[:bound], sign=-1 if given < 0 else 1)
    return _with_line(x, dim, ids[start:stop], call.shape)


def select(call: Call) -> Result:
    """Take one index of a dimension, which goes away."""
    x: Value = call["self"]
    dim = call["dim"] % len(x.shape)
    return _selected(call, x, dim, call["index"], call.shape)


def unbind(call: Call) -> Result:
    """Take every index of a dimension."""
    x: Value = call["self"]
    dim = call["dim"] % len(x.shape)
    return [_selected(call, x, dim, index, shape) for index, shape in enumerate(call.shapes)]


def chunk(call: Call) -> Result:
    """Cut a dimension into equal parts, which must stay equal: what is pruned of one is pruned of all."""
    x: Value = call["self"]
    dim = call["dim"] % len(x.shape)
    sizes = [shape[dim] for shape in call.shapes]
    ids = x.line(dim)
    if ids is None or len(set(sizes)) > 1:
        x = call.trace.fix(x, dim)
        return [Value(shape, x.blocks, x.parameter) for shape in call.shapes]
    parts = ids.reshape(len(sizes), sizes[0])
    call.trace.sets.union(parts[:1], parts)
    if "split_size" in call.arguments:
        call.counts("split_size", parts[0])
    return [_with_line(x, dim, part, shape) for part, shape in zip(parts, call.shapes, strict=True)]


def split(call: Call) -> Result:
    """Cut a dimension into parts of given sizes."""
    x: Value = call["self"]
    dim = call["dim"] % len(x.shape)
    ids = x.line(dim)
    if ids is None:
        x = call.trace.fix(x, dim)
        return [Value(shape, x.blocks, x.parameter) for shape in call.shapes]
    parts = np.split(ids, np.cumsum([shape[dim] for shape in call.shapes])[:-1])
    for index, part in enumerate(parts):
        call.counts("split_sizes", part, index=index)
    return [_with_line(x, dim, part, shape) for part, shape in zip(parts, call.shapes, strict=True)]


def cat(call: Call) -> Result:
    """Put tensors one after the other along a dimension."""
    values = [value for value in call["tensors"] if value.shape != (0,)]
    dim = call["dim"] % len(call.shape)
    alone = [_alone(call, value, dim) for value in values]
    lines = [value.line(dim) for value in alone]
    sizes = [value.shape[dim] for value in alone]
    slim = [_without(value, dim) for value in alone]
    others = elementwise(call.trace, slim, tuple(1 if place == dim else size for place, size in enumerate(call.shape)))
    if all(line is None for line in lines):
        return Value(call.shape, others.blocks)
    joined = np.concatenate([_or_dead(call, line, size) for line, size in zip(lines, sizes, strict=True)])
    return Value(call.shape, (*others.blocks, Block((dim,), joined)))


def stack(call: Call) -> Result:
    """Put tensors beside one another along a new dimension."""
    dim = call["dim"] % len(call.shape)
    one = elementwise(call.trace, call["tensors"], call.shape[:dim] + call.shape[dim + 1 :])
    return _shifted(one, dim, call.shape)


def pad(call: Call) -> Result:
    """Pad with a constant: new elements that hold no weight, but can go with what they are added to."""
    x: Value = call["self"]
    amounts = list(call["pad"])
    constant = call.arguments.get("mode", "constant") == "constant"
    for place in range(len(amounts) // 2):
        low, high = amounts[2 * place : 2 * place + 2]
        dim = len(x.shape) - 1 - place
        ids = x.line(dim)
        if (low, high) == (0, 0) or x.block(dim) is None:
            continue
        if ids is None or not constant or min(low, high) < 0:
            x = call.trace.fix(x, dim)
            continue
        before, after = call.trace.sets.new(low), call.trace.sets.new(high)
        call.counts("pad", before, index=2 * place)
        call.counts("pad", after, index=2 * place + 1)
        x = _with_line(x, dim, np.concatenate([before, ids, after]), x.shape)
    return Value(call.shape, x.blocks)


def roll(call: Call) -> Result:
    """Rotate dimensions, which must stay whole."""
    x: Value = call["self"]
    return call.trace.fix(x, *(call["dims"] or range(len(x.shape))))


def flip(call: Call) -> Result:
    """Reverse dimensions."""
    x: Value = call["self"]
    for dim in call["dims"]:
        ids = x.line(dim)
        x = call.trace.fix(x, dim) if ids is None else _with_line(x, dim % len(x.shape), ids[::-1], x.shape)
    return x


def index(call: Call) -> Result:
    """Look up rows by an index tensor; the dimension that is looked up stays whole."""
    x: Value = call["self"]
    looked_up = [dim for dim, which in enumerate(call["indices"]) if which is not None]
    for which in call["indices"]:
        if which is not None:
            call.trace.fix_all(which)
    x = call.trace.fix(x, *looked_up)
    first, count = looked_up[0], len(looked_up)
    if looked_up != list(range(first, first + count)):
        x = call.trace.fix_all(x)
    grown = len(call.shape) - len(x.shape)
    blocks = [_moved(block, [dim if dim < first else dim + grown for dim in block.dims]) for block in x.blocks]
    return Value(call.shape, tuple(blocks))


def embedding(call: Call) -> Result:
    """Look up rows of a table."""
    table = call.trace.fix(call["weight"], 0)
    call.trace.fix_all(call["indices"])
    return Value(call.shape, tuple(_moved(block, [len(call.shape) - 1]) for block in table.blocks))


def getitem(call: Call) -> Result:
    """Pick one of several outputs."""
    picked: Value = call["0"][call["1"]]
    return picked


def pixel_shuffle(call: Call) -> Result:
    """Move r² channels into r × r pixels: the r² channels of an output channel go together."""
    x: Value = call["self"]
    factor = call["upscale_factor"]
    ids = x.line(-3)
    if ids is None:
        return Value(call.shape, call.trace.fix(x, -3).blocks)
    parts = ids.reshape(-1, factor * factor)
    call.trace.sets.union(parts[:, :1], parts)
    return _with_line(x, len(x.shape) - 3, parts[:, 0], call.shape)


def _count_sizes(call: Call, name: str, result: Value, first: int) -> None:
    for place, size in enumerate(call[name]):
        block = result.block(first + place)
        if block is not None and size != -1:
            call.counts(name, block.ids, index=place, axis=block.dims.index(first + place))


def _unflattened(call: Call) -> int:
    x: Value = call["self"]
    dim: int = call["dim"]
    return dim % len(x.shape)


def _permuted(x: Value, order: Sequence[int]) -> Value:
    where = {old: new for new, old in enumerate(order)}
    blocks = tuple(_moved(block, [where[dim] for dim in block.dims]) for block in x.blocks)
    return Value(tuple(x.shape[dim] for dim in order), blocks, x.parameter)


def _moved(block: Block, dims: Sequence[int]) -> Block:
    order = sorted(range(len(dims)), key=lambda place: dims[place])
    return Block(tuple(dims[place] for place in order), block.ids.transpose(order))


def _with_line(x: Value, dim: int, ids: Ids, shape: tuple[int, ...]) -> Value:
    others = tuple(block for block in x.blocks if dim not in block.dims)
    return Value(shape, (*others, Block((dim,), ids)), x.parameter)


def _selected(call: Call, x: Value, dim: int, place: int, shape: tuple[int, ...]) -> Value:
    block = x.block(dim)
    ids = None
    if block is not None and len(block.dims) > 1:
        ids = np.take(block.ids, place, block.dims.index(dim))
    x = call.trace.fix(x, dim)
    blocks = []
    for other in x.blocks:
        kept = other.ids
        if ids is not None and block is not None and set(other.dims) < set(block.dims):
            kept = ids
        blocks.append(_moved(Block(other.dims, kept), [d - (d > dim) for d in other.dims]))
    return Value(shape, tuple(blocks), x.parameter)


def _alone(call: Call, value: Value, dim: int) -> Value:
    """Shrink a joint block that holds the dimension to that dimension."""
    block = value.block(dim)
    others = [] if block is None else [other for other in block.dims if other != dim]
    return call.trace.fix(value, *others)


def _without(value: Value, dim: int) -> Value:
    shape = tuple(1 if place == dim else size for place, size in enumerate(value.shape))
    return Value(shape, tuple(block for block in value.blocks if dim not in block.dims))


def _or_dead(call: Call, line: Ids | None, size: int) -> Ids:
    if line is not None:
        return line
    ids = call.trace.sets.new(size)
    call.trace.sets.freeze(ids)
    return ids


def _shifted(value: Value, dim: int, shape: tuple[int, ...]) -> Value:
    blocks = tuple(_moved(block, [place + (place >= dim) for place in block.dims]) for block in value.blocks)
    return Value(shape, blocks)
