"""How ids move through a reshape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.pruning.union_find import Ids
from adaptkit.pruning.values import Block, Trace, Value

Segment = tuple[tuple[int, ...], tuple[int, ...]]


def segments(before: Sequence[int], after: Sequence[int]) -> list[Segment]:
    """Split a reshape into the smallest runs of dimensions of equal product; sizes of 1 are left out.

    Example:
        >>> segments((2, 6, 5, 5), (2, 2, 3, 25))
        [((0,), (0,)), ((1,), (1, 2)), ((2, 3), (3,))]
    """
    left = [dim for dim, size in enumerate(before) if size != 1]
    right = [dim for dim, size in enumerate(after) if size != 1]
    found: list[Segment] = []
    while left and right:
        take, give = [left.pop(0)], [right.pop(0)]
        have, want = before[take[0]], after[give[0]]
        while have != want:
            if have < want:
                take.append(left.pop(0))
                have *= before[take[-1]]
            else:
                give.append(right.pop(0))
                want *= after[give[-1]]
        found.append((tuple(take), tuple(give)))
    return found


def reshaped(trace: Trace, value: Value, shape: tuple[int, ...]) -> Value:
    """Rearrange the ids of a value for a new shape.

    A channel flattened with pixels gives every pixel its channel's id; a channel dimension that is split becomes one
    joint block over the new dimensions, and what is kept of that must be whole slabs.
    """
    runs = segments(value.shape, shape)
    blocks: list[Block] = []
    taken: set[int] = set()
    for block in sorted(value.blocks, key=lambda item: -item.ids.size):
        touched = [number for number, (dims, _) in enumerate(runs) if set(dims) & set(block.dims)]
        if taken & set(touched):
            trace.sets.freeze(block.ids)
            continue
        taken.update(touched)
        before = [dim for number in touched for dim in runs[number][0]]
        after = [dim for number in touched for dim in runs[number][1]]
        full = _spread(block, before, value.shape).reshape([shape[dim] for dim in after])
        blocks += _simplified(trace, full, after, is_new=list(full.shape) != list(block.ids.shape))
    return Value(shape, tuple(blocks), value.parameter)


def _spread(block: Block, dims: Sequence[int], shape: Sequence[int]) -> Ids:
    """Repeat the ids along the dimensions that the block does not have."""
    slim = [shape[dim] if dim in block.dims else 1 for dim in dims]
    return np.broadcast_to(block.ids.reshape(slim), [shape[dim] for dim in dims])


def _simplified(trace: Trace, ids: Ids, dims: Sequence[int], is_new: bool) -> list[Block]:
    """Leave out the dimensions along which the ids do not change."""
    kept: list[int] = []
    for dim in dims:
        axis = len(kept)
        if ids.shape[axis] > 1 and (ids.take([0], axis) == ids).all():
            ids = np.take(ids, 0, axis)
        else:
            kept.append(dim)
    if is_new and len(kept) > 1:
        trace.rectangles.append(ids)
    return [Block(tuple(kept), ids)] if kept else []
