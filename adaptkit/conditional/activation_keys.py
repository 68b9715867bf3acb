"""What makes keys of activations: a few numbers by which samples of a class, or copies of a sample, are alike."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.conditional.keys import discriminant

Array: TypeAlias = np.ndarray[Any, Any]
_TINY = 1e-12
_FEATURES = 1024
"""Of a pooled activation, at most, where it has fewer channels: a discriminant takes their cube in time."""


class KeyHead(nn.Module):
    """Pool an activation, project it, and scale it to length 1.

    Args:
        cells: See `pooled`.
        mean: Of pooled activations, features.
        projection: Features × dimensions.
    """

    offset: Tensor
    projection: Tensor

    def __init__(self, cells: int, mean: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.cells = cells
        self.register_buffer("offset", mean @ projection)
        self.register_buffer("projection", projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map activations to N × dimensions."""
        return self.keys(pooled(x, self.cells))

    def keys(self, values: Tensor) -> Tensor:
        """Map pooled activations to N × dimensions."""
        keys = values @ self.projection - self.offset
        # F.normalize reads the batch size off the model's input, and the graph could not be cut.
        unit: Tensor = keys / keys.square().sum(1, keepdim=True).sqrt().clamp_min(_TINY)
        return unit


def pooled(x: Tensor, cells: int) -> Tensor:
    """Average maps over about cells × cells places, and sequences over about as many parts; vectors stay.

    There are fewer cells where there would be too many features.

    Example:
        >>> pooled(torch.zeros(2, 16, 8, 8), 1).shape, pooled(torch.zeros(2, 50, 32), 1).shape
        (torch.Size([2, 16]), torch.Size([2, 32]))
        >>> pooled(torch.zeros(2, 16, 8, 8), 4).shape, pooled(torch.zeros(2, 256, 8, 8), 4).shape
        (torch.Size([2, 256]), torch.Size([2, 1024]))
    """
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        x = x.transpose(1, 2)
    places = x.ndim - 2
    while cells > 1 and x.shape[1] * cells**places > _FEATURES:
        cells -= 1
    if cells == 1:
        return x.mean((2, 3)) if places == 2 else x.mean(2)
    window = [max(1, size // cells) for size in x.shape[2:]]
    parts = F.avg_pool2d(x, window) if places == 2 else F.avg_pool1d(x, window)
    return parts.reshape(-1, parts[0].numel())  # flatten would read the batch size off the model's input


def class_head(activations: Tensor, labels: Array, dimensions: int) -> KeyHead:
    """Project averaged activations to where the classes differ most, for how much samples of one class differ."""
    means = torch.zeros_like(activations)
    for label in np.unique(labels):
        mine = torch.from_numpy(labels == label)
        means[mine] = activations[mine].mean(0)
    return KeyHead(1, activations.mean(0), discriminant(activations, activations - means, dimensions))


def repeat_head(cells: int, activations: Tensor, again: Tensor, dimensions: int) -> KeyHead:
    """Project pooled activations to where samples differ most, for how much one differs from time to time.

    Args:
        cells: They are pooled to.
        activations: Of samples, N × features.
        again: Of the same samples, changed anew.
        dimensions: Of a key, at most.
    """
    return KeyHead(cells, activations.mean(0), discriminant(activations, activations - again, dimensions))
