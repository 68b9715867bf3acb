"""Integer grids for weights and biases, safe where a CPU adds two 8-bit products in 16 bits."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from adaptkit.quantization.plan import Grid

LIMIT = 32767
"""The largest sum that a 16-bit register holds."""
_RATIOS = tuple(i / 24 for i in range(24, 9, -1))
# The fewer the levels, the more is clipped: from one to four bits the best range may be a twelfth of the widest.
_RATIOS_OF_FEW = tuple(i / 48 for i in range(48, 3, -1))
_STRAY = 0.01
"""Share of zeros that need not mean anything."""
_AT_ONCE = 1 << 20
_BIAS_ROOM = float(1 << 30)


def rows_in_runtime_order(weight: Tensor) -> Tensor:
    """Lay out the weights of each output channel in the order in which ONNX Runtime multiplies them.

    Args:
        weight: out × in (linear) or out × in × kernel… (convolution, channels last in memory).

    Returns:
        out × (kernel · in), the input channel fastest.
    """
    return weight.movedim(1, -1).reshape(weight.shape[0], -1)


def worst_pair(rows: Tensor) -> Tensor:
    """Find the largest sum, in magnitude, of two neighbouring products of a weight and an activation of 0 … 255.

    A CPU with AVX2 or AVX-512 but without VNNI multiplies eight-bit values with `vpmaddubsw`, which adds the products
    2i and 2i + 1 in 16 bits and saturates: max over i of 255 · max(Σ positive, Σ |negative| of the pair).

    Args:
        rows: Integers, out × K, in runtime order.

    Returns:
        One value an output channel; beyond 32767 the result may be wrong.

    Example:
        >>> worst_pair(torch.tensor([[100, 50], [100, -50]]))
        tensor([38250, 25500])
    """
    if rows.shape[1] % 2:
        rows = torch.nn.functional.pad(rows, (0, 1))
    pairs = rows.reshape(rows.shape[0], -1, 2)
    positive, negative = pairs.clamp(min=0).sum(2), -pairs.clamp(max=0).sum(2)
    return 255 * torch.maximum(positive, negative).amax(1)


def weight_grid(weight: Tensor, bits: int | None = None, per_channel: bool = True, depthwise: bool = False) -> Grid:
    """Find the symmetric grid of least squared error for the weights of a layer.

    Tried are fifteen scales a channel, 45 with at most four bits. With `bits=None` the grid has eight bits, and only
    scales count that keep every pair of products within 16 bits (see `worst_pair`): most channels then keep more than
    the seven bits that are safe whatever the weights. Depthwise weights, whose products are never added in pairs, keep
    eight. One or two bits are odd integers, without a level at zero; two are not where weights were pruned: those stay
    zero. One bit cannot keep them (see `is_pruned`).

    Args:
        weight: out × in × kernel… .
        bits: 1 to 8, or None for eight bits within the limit.
        per_channel: One scale an output channel, or one for all.
        depthwise: Whether every channel has a filter of its own (see `is_depthwise`).

    Example:
        >>> weight_grid(torch.tensor([[1.27, 0.0], [0.0, 2.54]]), bits=8).scale == tuple(
        ...     float(s) for s in torch.tensor([1.27, 2.54]) / 127
        ... )
        True
    """
    rows = rows_in_runtime_order(weight.detach()).float()
    axis = 0 if per_channel else None
    pruned = float((rows == 0).float().mean()) > _STRAY
    odd = bits == 1 or (bits == 2 and not pruned)
    blank = Grid((1.0,), (0,), bits or 8, odd=odd)
    limited = bits is None and not depthwise
    if per_channel:
        parts = rows.split(max(1, _AT_ONCE // rows.shape[1]))  # type: ignore[no-untyped-call]
        scale = torch.cat([_best_scale(part[None], blank, limited) for part in parts], 1)[0]
    else:
        scale = _best_scale(rows[:, None], blank, limited)[0]
    return Grid(tuple(scale.tolist()), (0,) * len(scale), blank.bits, True, axis, odd)


def block_grid(weight: Tensor, bits: int, block: int) -> Grid:
    """Find the symmetric grid of least squared error with one scale for each `block` weights of an output channel.

    Args:
        weight: out × in × kernel…, counted as a matrix out × K.
        bits: 2 to 8.
        block: Neighbours along K that share a scale; the last block of a row may be shorter.

    Example:
        >>> len(block_grid(torch.ones(2, 5), bits=4, block=4).scale)
        4
    """
    rows = weight.detach().float().flatten(1)
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % block)).reshape(-1, block)
    blank = Grid((1.0,), (0,), bits)
    parts = padded.split(max(1, _AT_ONCE // block))  # type: ignore[no-untyped-call]
    scale = torch.cat([_best_scale(part[None], blank, limited=False) for part in parts], 1)[0]
    return Grid(tuple(scale.tolist()), (0,) * len(scale), bits, axis=0, block=block)


def _best_scale(rows: Tensor, grid: Grid, limited: bool) -> Tensor:
    """Try the scales for `shared × channels × K` weights, where rows along the first dimension share one scale."""
    largest = rows.abs().amax((0, 2), keepdim=True).clamp(min=1e-10)
    # A scale of largest / 64 is safe for any weights, so the first candidate always counts.
    base = largest / (64 if limited else max(grid.highest, 1))
    best, error = base, torch.full_like(base, float("inf"))
    for ratio in _RATIOS if grid.bits > 4 else _RATIOS_OF_FEW:
        scale = base * ratio
        # By the inverse, as the simulator and the file round.
        scaled = rows * (1 / scale)
        integers = 2 * torch.floor(scaled / 2) + 1 if grid.odd else torch.round(scaled)
        integers.clamp_(grid.lowest, grid.highest)
        cost = (integers * scale - rows).square_().sum((0, 2), keepdim=True)
        if limited:
            worst = worst_pair(integers.flatten(0, 1)).reshape(rows.shape[:2]).amax(0).reshape(cost.shape)
            cost[worst > LIMIT] = float("inf")
        better = cost < error
        best, error = torch.where(better, scale, best), torch.where(better, cost, error)
    return best[0, :, :].T


def is_pruned(weight: Tensor) -> bool:
    """Whether so many weights are zero that they are meant to stay; channels that are zero as a whole do not count.

    Example:
        >>> is_pruned(torch.tensor([[1.0, 0.0], [2.0, 3.0]])), is_pruned(torch.tensor([[1.0, 4.0], [0.0, 0.0]]))
        (True, False)
    """
    zero = weight.detach().flatten(1) == 0
    alive = zero[~zero.all(1)]
    return bool(alive.float().mean() > _STRAY)


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether a convolution maps every channel to one channel; ONNX Runtime has a kernel of its own for that."""
    return groups > 1 and shape[0] == groups and shape[1] == 1


def roomy(grid: Grid, bias: Tensor, input_scale: float) -> Grid:
    """Widen the scales of channels whose bias would not fit 32 bits beside them (dead channels, mostly).

    Args:
        grid: The weights' grid.
        bias: One value an output channel.
        input_scale: Scale of the layer's input.
    """
    needed = bias.detach().double().abs() / (input_scale * _BIAS_ROOM)
    if len(grid.scale) == 1:
        needed = needed.amax(0, keepdim=True)
    scale = torch.maximum(torch.tensor(grid.scale, dtype=torch.float64), needed).float()
    return dataclasses.replace(grid, scale=tuple(scale.tolist()))


def bias_grid(weight: Grid, input_scale: float) -> Grid:
    """Make the grid of a bias: s = s_x · s_w in float32, 32 bits, as the integer kernels add it."""
    scale = torch.tensor(weight.scale) * torch.tensor(input_scale)
    return Grid(tuple(scale.tolist()), weight.zero_point, 32, True, weight.axis)
