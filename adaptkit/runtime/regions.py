"""Which places of a feature map must be made anew, and which windows of its input they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaptkit.runtime.result import Array


def coarsen(mask: Array, step: int) -> Array:
    """Say which squares of step × step places hold one that is set.

    Example:
        >>> coarsen(np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool), 2)
        array([[ True, False]])
    """
    if step == 1:
        return mask
    height, width = mask.shape[0] // step, mask.shape[1] // step
    rows = np.logical_or.reduce(mask.reshape(height, step, mask.shape[1]), axis=1)
    found: Array = np.logical_or.reduce(rows.reshape(height, width, step), axis=2)
    return found


def spread(mask: Array, before: int, after: int) -> Array:
    """Set every place p that sees one of p − before … p + after, along both axes.

    Example:
        >>> spread(np.array([[0, 0, 1, 0, 0]], bool), 1, 2).astype(int)
        array([[1, 1, 1, 1, 0]])
    """
    for _ in range(2):
        wide = mask.copy()
        for shift in range(1, min(before, len(mask) - 1) + 1):
            wide[shift:] |= mask[:-shift]
        for shift in range(1, min(after, len(mask) - 1) + 1):
            wide[:-shift] |= mask[shift:]
        mask = wide.T
    return mask


@dataclass(frozen=True)
class Axis:
    """How tiles lie along one axis of a map, each with the window of the input that it is made of.

    A window reaches as far around its tile as the network looks, but never beyond the border: there it is moved
    inwards, so that all have one length and those at the border have the border's padding.

    Args:
        length: Of every window, input places.
        starts: First input place of each tile's window.
        offsets: Where the tile begins in what its window gives, output places.
    """

    length: int
    starts: Array
    offsets: Array


def lay_out(size: int, stride: int, tile: int, before: int, after: int) -> Axis:
    """Lay tiles over an axis.

    Args:
        size: Input places, a multiple of stride · tile.
        stride: Input places between two output places.
        tile: Output places of a tile.
        before: Output place p looks back to p · stride − before,
        after: and ahead to p · stride + after.

    Example:
        >>> axis = lay_out(16, 2, 2, 1, 1)
        >>> axis.length, axis.starts.tolist(), axis.offsets.tolist()
        (6, [0, 2, 6, 10], [0, 1, 1, 1])
    """
    back, ahead = -(-before // stride), max(0, after // stride)
    first = np.arange(size // (stride * tile)) * tile
    length = min(size, stride * (back + tile + ahead))
    starts = np.clip((first - back) * stride, 0, size - length)
    return Axis(length, starts, first - starts // stride)
