"""Projections onto sets of sparse weights: which entries the nearest sparse tensor of a set keeps.

A set says what goes as a whole, its units: single weights (`element`), output channels (`filter`), input channels
(`channel`), one place of all filters (`column` of the matrix out × in·k·k), or kernels that keep four places
(`pattern`). Keeping the units of largest energy Σ w² is the Euclidean projection.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adaptkit.pruning.masks import highest

Kind = Literal["element", "filter", "channel", "column", "pattern"]

ENTRIES = 4
"""Weights that a pattern keeps of a 3 × 3 kernel, its centre among them."""


@dataclass(frozen=True)
class ConstraintSet:
    """The tensors with at most so many units that are not zero.

    Args:
        kind: What a unit is.
        kept: Units that may stay.
        patterns: For `pattern`: patterns × 9, true where a weight may stay.
        allowed: Where weights may stay at all; elsewhere they are zero already, and are to stay so.

    Example:
        >>> weight = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
        >>> ConstraintSet("filter", 1).project(weight)
        tensor([[3., 1.],
                [0., 0.]])
        >>> ConstraintSet("column", 1).project(weight)
        tensor([[3., 0.],
                [0., 0.]])
    """

    kind: Kind
    kept: int
    patterns: Tensor | None = None
    allowed: Tensor | None = None

    def mask(self, weight: Tensor) -> Tensor:
        """Say which entries the projection keeps; the shape of the weight.

        Args:
            weight: out × in × ….
        """
        if self.allowed is not None:
            weight = weight.masked_fill(~self.allowed, 0)
        mask = highest([unit_energies(weight, self.kind, self.patterns)], self.kept)[0].expand_as(weight)
        if self.patterns is not None:
            mask = mask & best_patterns(weight, self.patterns)
        return mask.contiguous() if self.allowed is None else mask & self.allowed

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest tensor of the set."""
        return weight.masked_fill(~self.mask(weight), 0)


def unit_energies(weight: Tensor, kind: Kind, patterns: Tensor | None = None) -> Tensor:
    """Return Σ w² of every unit, in a shape that broadcasts to the weight; of a kernel, what its best pattern keeps.

    Args:
        weight: out × in × ….
        kind: What a unit is.
        patterns: As in `ConstraintSet`.
    """
    squares = weight.detach().square()
    every = set(range(weight.dim()))
    summed: dict[str, set[int]] = {"filter": every - {0}, "channel": every - {1}, "column": {0}, "pattern": {2, 3}}
    if kind == "element":
        return squares
    if patterns is not None:
        squares = squares * best_patterns(weight, patterns)
    return squares.sum(sorted(summed[kind]), keepdim=True)


def unit_count(shape: Iterable[int], kind: Kind) -> int:
    """Count the units of a weight.

    Example:
        >>> [unit_count((8, 4, 3, 3), kind) for kind in ("element", "filter", "channel", "column", "pattern")]
        [288, 8, 4, 36, 32]
    """
    return unit_energies(torch.empty(*shape, device="meta"), kind).numel()


def best_patterns(weight: Tensor, patterns: Tensor) -> Tensor:
    """Say which places the best pattern of every kernel keeps; the shape of the weight.

    Args:
        weight: out × in × 3 × 3.
        patterns: patterns × 9, boolean.
    """
    kernels = weight.detach().square().flatten(2)
    return patterns[(kernels @ patterns.to(kernels.dtype).T).argmax(-1)].reshape(weight.shape)


def common_patterns(weights: Iterable[Tensor], count: int) -> Tensor:
    """Find the patterns that suit most kernels: the centre and the three largest others, counted over all kernels.

    Sources: Niu et al. 2020, "PatDNN: achieving real-time DNN execution on mobile devices with pattern-based weight
    pruning", section 4.1.

    Args:
        weights: out × in × 3 × 3 each.
        count: How many patterns, at most the 56 there are.

    Returns:
        patterns × 9, boolean.
    """
    every = torch.zeros(56, 9, dtype=torch.bool)
    every[:, 4] = True
    for row, places in zip(every, itertools.combinations((0, 1, 2, 3, 5, 6, 7, 8), ENTRIES - 1), strict=True):
        row[list(places)] = True
    votes = torch.zeros(len(every), dtype=torch.long)
    for weight in weights:
        choices = (weight.detach().square().flatten(2) @ every.to(weight.dtype).T).argmax(-1)
        votes += choices.flatten().bincount(minlength=len(every))
    return every[votes.argsort(descending=True, stable=True)[:count].sort().values]
