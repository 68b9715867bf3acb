"""Learned rounding: every weight goes up or down, whichever keeps what its layer computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.quantization.plan import Grid
from adaptkit.quantization.weights import LIMIT

_SWEEPS = 20
_BLOCK = 64
_DEAD = 1e-5
"""Inputs that vary less than this, compared with the liveliest, say nothing about their weights."""


@dataclass
class Moments:
    """Second moments of a layer's inputs, exact (x) and quantized (x̂), over vectors of K values.

    Args:
        quantized: groups × K × K: mean of x̂ x̂ᵀ.
        cross: groups × K × K: mean of x x̂ᵀ.
    """

    quantized: Tensor
    cross: Tensor


def neighbours(rows: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Find the integers of a grid next below and next above every weight; a weight that was pruned has zero alone.

    Args:
        rows: Weights, out along the dimension before the last; the grid has one scale, or one for each of them.
        grid: Symmetric.

    Example:
        >>> neighbours(torch.tensor([[0.6, -9.0]]), Grid((0.5,), (0,), bits=4))
        (tensor([[ 1., -8.]]), tensor([[ 2., -8.]]))
    """
    scaled = rows / step_of(rows, grid)
    low = 2 * torch.floor((scaled - 1) / 2) + 1 if grid.odd else torch.floor(scaled)
    high = low + (2 if grid.odd else 1)
    if not grid.odd:
        high = torch.where(rows == 0, low, high)
    return low.clamp(grid.lowest, grid.highest), high.clamp(grid.lowest, grid.highest)


def step_of(rows: Tensor, grid: Grid) -> Tensor:
    """Shape the scales of a grid so that they multiply groups × (out / groups) × K weights."""
    scale = torch.tensor(grid.scale, dtype=rows.dtype)
    return scale.reshape(*rows.shape[:-1], 1) if grid.axis is not None else scale


def learn_rounding(rows: Tensor, grid: Grid, moments: Moments, paired: bool = False) -> Tensor:
    """Choose between the two neighbours of every weight, so that the layer's outputs stay.

    Least E‖W x − Ŵ x̂‖², the quadratic problem of AdaRound (Nagel et al. 2020, "Up or Down? Adaptive Rounding for
    Post-Training Quantization", section 3), x̂ being what the quantized layers before give. It is solved one weight
    at a time until none changes: every step is exact, nothing is to be tuned, and a bound on pairs of integers holds.

    Args:
        rows: Exact weights, groups × (out / groups) × K.
        grid: Of the weights.
        moments: Of the layer's inputs.
        paired: Whether two neighbouring products must stay within 16 bits (see `weights.worst_pair`).

    Returns:
        Integers in the shape of `rows`; the error is never above that of rounding to nearest.
    """
    step = step_of(rows, grid)
    low, high = (side.transpose(1, 2).contiguous() for side in neighbours(rows, grid))
    exact = (rows / step).transpose(1, 2)
    problem = _Problem(low, high, step.expand_as(rows).transpose(1, 2).contiguous(), moments.quantized, paired)
    integers = torch.where(exact - low <= high - exact, low, high)
    wanted = moments.cross.transpose(1, 2) @ rows.transpose(1, 2)
    for _ in range(_SWEEPS):
        before = integers.clone()
        _sweep(problem, integers, moments.quantized @ (integers * problem.step) - wanted)
        if torch.equal(before, integers):
            break
    return integers.transpose(1, 2)


class _Problem:
    """What stays during the sweeps; all weights are groups × K × (out / groups)."""

    def __init__(self, low: Tensor, high: Tensor, step: Tensor, moments: Tensor, paired: bool) -> None:
        self.low, self.high, self.step, self.moments, self.paired = low, high, step, moments, paired
        self.middle = (low + high) / 2
        curvature = moments.diagonal(dim1=1, dim2=2)[:, :, None]
        alive = curvature > _DEAD * curvature.amax(1, keepdim=True)
        # Nothing moves a weight whose input says nothing.
        self.newton = torch.where(alive, 1 / (torch.where(alive, curvature, 1.0) * step), 0.0)


def _sweep(problem: _Problem, integers: Tensor, slope: Tensor) -> None:
    """Choose every weight once, from the first to the last input, in place; `slope` is that of half the error."""
    width = integers.shape[1]
    for start in range(0, width, _BLOCK):
        block = slice(start, min(start + _BLOCK, width))
        inside = problem.moments[:, block, block]
        own, changes = slope[:, block], torch.zeros_like(integers[:, block])
        for k in range(block.start, block.stop):
            old = integers[:, k]
            best = old - slope[:, k] * problem.newton[:, k]
            new = torch.where(best <= problem.middle[:, k], problem.low[:, k], problem.high[:, k])
            if problem.paired:
                new = torch.where(_fits(new, _partner(integers, k)), new, old)
            change = (new - old) * problem.step[:, k]
            own.addcmul_(inside[:, k - start, :, None], change[:, None])
            changes[:, k - start] = change
            integers[:, k] = new
        slope[:, block.stop :] += problem.moments[:, block.stop :, block] @ changes


def _partner(integers: Tensor, k: int) -> Tensor:
    other = k ^ 1
    return integers[:, other] if other < integers.shape[1] else torch.zeros_like(integers[:, k])


def _fits(value: Tensor, partner: Tensor) -> Tensor:
    positive = value.clamp(min=0) + partner.clamp(min=0)
    negative = value.clamp(max=0) + partner.clamp(max=0)
    return 255 * torch.maximum(positive, -negative) <= LIMIT
