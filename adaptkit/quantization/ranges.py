"""Which range of real numbers the integers of a grid should cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adaptkit.quantization.plan import Grid

Method = Literal["minmax", "percentile", "entropy", "mse"]
Interval = tuple[float, float]
_STEPS = 64


@dataclass(frozen=True)
class Histogram:
    """How often a tensor's values fell into equal bins.

    Args:
        counts: Whole numbers as float64, one a bin.
        low: Left edge of the first bin: the smallest value seen.
        high: Right edge of the last bin: the largest value seen.
    """

    counts: Tensor
    low: float
    high: float

    @property
    def centers(self) -> Tensor:
        """Middle of every bin."""
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (torch.arange(len(self.counts), dtype=torch.float64) + 0.5)


def find_range(histogram: Histogram, method: Method, percentile: float = 99.99, levels: int = 256) -> Interval:
    """Choose the real interval that the grid shall cover; it always holds zero.

    - minmax: all that was seen.
    - percentile: cuts (100 − percentile) / 2 percent of the values at either side.
    - mse: least squared error Σ count · (x − Q(x))² of rounding and clipping together (Banner et al. 2019, "Post
      training 4-bit quantization of convolutional networks for rapid-deployment", section 2).
    - entropy: least Kullback-Leibler divergence from the original to the quantized distribution (Migacz 2017, "8-bit
      inference with TensorRT").

    Args:
        histogram: The values seen.
        method: One of the above.
        percentile: Share of the values to keep, in percent; for method percentile.
        levels: How many integers the grid has.

    Example:
        >>> counts = torch.tensor([1.0, 0.0, 98.0, 1.0], dtype=torch.float64)
        >>> find_range(Histogram(counts, 0.0, 4.0), "minmax")
        (0.0, 4.0)
        >>> find_range(Histogram(counts, 0.0, 4.0), "percentile", percentile=97)
        (0.0, 3.0)
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "minmax" or histogram.high <= histogram.low:
        return low, high
    if method == "percentile":
        return _percentile(histogram, percentile)
    cost = _squared_error if method == "mse" else _divergence
    return _search(histogram, cost, levels)


def _percentile(histogram: Histogram, percentile: float) -> Interval:
    share = torch.cumsum(histogram.counts, 0) / histogram.counts.sum()
    tail = (100 - percentile) / 200
    width = (histogram.high - histogram.low) / len(share)
    first = int(torch.searchsorted(share, tail, right=True))
    last = int(torch.searchsorted(share, 1 - tail))
    low, high = histogram.low + first * width, histogram.low + (min(last, len(share) - 1) + 1) * width
    return min(low, 0.0), max(high, 0.0)


def _search(histogram: Histogram, cost: Callable[[Histogram, Interval, int], float], levels: int) -> Interval:
    """Shrink first the wider side, then the other; each candidate is a whole number of 64ths of the range seen."""
    best = (min(histogram.low, 0.0), max(histogram.high, 0.0))
    sides = (1, 0) if best[1] >= -best[0] else (0, 1)
    for side in sides:
        if best[side] == 0:
            continue
        candidates = []
        for step in range(_STEPS, _STEPS // 8 - 1, -1):
            changed = best[side] * step / _STEPS
            candidates.append((best[0], changed) if side else (changed, best[1]))
        best = min(candidates, key=lambda candidate: cost(histogram, candidate, levels))
    return best


def _squared_error(histogram: Histogram, interval: Interval, levels: int) -> float:
    centers, scale = histogram.centers, (interval[1] - interval[0]) / (levels - 1)
    if scale == 0:
        return float((histogram.counts * centers**2).sum())
    zero_point = round(-interval[0] / scale)
    rounded = torch.clamp(torch.round(centers / scale) + zero_point, 0, levels - 1)
    return float((histogram.counts * (centers - (rounded - zero_point) * scale) ** 2).sum())


def _divergence(histogram: Histogram, interval: Interval, levels: int) -> float:
    centers, counts = histogram.centers, histogram.counts
    bins = len(counts)
    inside = (centers >= interval[0]) & (centers <= interval[1])
    if not bool(inside.any()) or interval[1] == interval[0]:
        return float("inf")
    clipped = centers.clamp(interval[0], interval[1])
    width = (histogram.high - histogram.low) / bins
    home = ((clipped - histogram.low) / width).long().clamp(0, bins - 1)
    original = torch.zeros_like(counts).index_add(0, home, counts)
    level = ((clipped - interval[0]) / (interval[1] - interval[0]) * (levels - 1)).round().long()
    mass = torch.zeros(levels, dtype=torch.float64).index_add(0, level, torch.where(inside, counts, 0.0))
    filled = torch.zeros(levels, dtype=torch.float64).index_add(0, level, (inside & (counts > 0)).double())
    spread = torch.where(inside & (counts > 0), mass[level] / filled[level].clamp(min=1), 0.0)
    p, q = original / original.sum(), spread / spread.sum().clamp(min=1)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp(min=1e-12)).log()).sum())


def activation_grid(interval: Interval, signed: bool = False, bits: int = 8, symmetric: bool = False) -> Grid:
    """Lay a grid over an interval; zero is one of its values exactly.

    A symmetric grid has its zero in the middle; of an interval with no negative values it then uses one half.

    The scale is rounded towards zero, so that the grid never reaches beyond an activation function's own bound (6 in
    ReLU6): ONNX Runtime drops a Clip only then.

    Example:
        >>> activation_grid((0.0, 255.0))
        Grid(scale=(1.0,), zero_point=(0,), bits=8, signed=False, axis=None, odd=False, block=None)
        >>> activation_grid((-1.0, 12.7), symmetric=True).zero_point
        (128,)
    """
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    levels = (1 << bits) - 1
    if symmetric:
        high = max(-low, high)
        low = -high * (levels + 1) / (levels - 1)
    scale = torch.tensor(max((high - low) / levels, 1e-10), dtype=torch.float32)
    zero = min(max(round(-low / float(scale)), 0), levels)
    if float(scale * (levels - zero)) > high > 0:
        scale = torch.nextafter(scale, torch.tensor(0.0))
    shift = 1 << bits - 1 if signed else 0
    return Grid((float(scale),), (zero - shift,), bits, signed)
