"""Partial sums of limited width, bit by bit as an accelerator keeps them, in operations that ONNX has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.quantization.placement import CONVOLUTIONS
from adaptkit.quantization.plan import Accumulator, Grid

_EXACT = 1 << 24
"""Whole numbers below it are exact in float32."""


def keep(total: Tensor, bits: int, overflow: str) -> Tensor:
    """Fit whole numbers into two's complement of `bits` bits.

    Example:
        >>> keep(torch.tensor([130.0, -129.0]), 8, "saturate"), keep(torch.tensor([130.0, -129.0]), 8, "wrap")
        (tensor([ 127., -128.]), tensor([-126.,  127.]))
    """
    half, whole = float(1 << bits - 1), float(1 << bits)
    if overflow == "saturate":
        return total.clamp(-half, half - 1)
    return total - whole * torch.floor((total.detach() + half) / whole)


def accumulate(parts: list[Tensor], accumulator: Accumulator) -> Tensor:
    """Add up exact sums of tiles in an accumulator of limited width.

    p ← fit(p + ⌊(t + 2^(shift − 1)) / 2^shift⌋) for one tile's sum t after the other.

    Args:
        parts: The tiles' sums, whole numbers in float32.
        accumulator: Width, overflow and dropped bits.

    Returns:
        The last p · 2^shift.

    Example:
        >>> tiles = [torch.tensor([100.0]), torch.tensor([100.0]), torch.tensor([-100.0])]
        >>> accumulate(tiles, Accumulator(bits=8, tile=1)), accumulate(tiles, Accumulator(bits=8, tile=1, shift=1))
        (tensor([27.]), tensor([100.]))
    """
    unit = float(1 << accumulator.shift)
    kept = torch.zeros_like(parts[0])
    for part in parts:
        shifted = part / unit
        shifted = shifted + (torch.floor(shifted.detach() + (0.5 if accumulator.shift else 0.0)) - shifted.detach())
        kept = keep(kept + shifted, accumulator.bits, accumulator.overflow)
    return kept * unit


class PartialSums(nn.Module):
    """A convolution or linear layer on integers whose partial sums are kept in few bits.

    Tiles are runs of input channels; within one, products are added exactly, as an adder tree does.

    Args:
        layer: The operation.
        settings: What it takes besides input, weight and bias.
        input_grid: Of the input.
        weight_grid: Of the weight.
        accumulator: How partial sums are kept.
    """

    def __init__(
        self,
        layer: Callable[..., Tensor],
        settings: tuple[Any, ...],
        input_grid: Grid,
        weight_grid: Grid,
        accumulator: Accumulator,
    ) -> None:
        super().__init__()
        self.layer, self.settings, self.accumulator = layer, settings, accumulator
        self.convolution = layer in CONVOLUTIONS
        self.groups = int(settings[3]) if len(settings) > 3 else 1
        self.largest = (1 << input_grid.bits) * max(-weight_grid.lowest, weight_grid.highest)
        self.register_buffer("input_scale", torch.tensor(input_grid.scale[0]))
        self.register_buffer("weight_scale", torch.tensor(weight_grid.scale))
        self.input_scale: Tensor
        self.weight_scale: Tensor

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the layer; x and weight lie on their grids.

        Raises:
            ModelError: A tile is so large that its sum is not exact in float32.
        """
        scale = self.weight_scale.reshape(-1, *[1] * (weight.dim() - 1))
        integers, weights = _whole(x / self.input_scale), _whole(weight / scale)
        total = accumulate(self._parts(integers, weights), self.accumulator)
        trailing = x.dim() - 2 if self.convolution else 0
        result = total * (self.input_scale * self.weight_scale).reshape(-1, *[1] * trailing)
        return result if bias is None else result + bias.reshape(-1, *[1] * trailing)

    def tile_sums(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        """Give the exact sums of the tiles, for a choice of `shift`."""
        scale = self.weight_scale.reshape(-1, *[1] * (weight.dim() - 1))
        return self._parts(_whole(x / self.input_scale), _whole(weight / scale))

    def _parts(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        tile, channels = self.accumulator.tile, weight.shape[1]
        together = min(tile, channels)
        products = together * weight[0, 0].numel()
        if products * self.largest >= _EXACT:
            most = together * (_EXACT - 1) // (products * self.largest)
            raise ModelError(
                f"a tile of {together} channels adds {products} products, too many to be exact in float32: "
                f"choose tile={max(1, most)}"
            )
        parts = []
        for start in range(0, channels, tile):
            stop = min(start + tile, channels)
            parts.append(self.layer(self._slice(x, start, stop, channels), weight[:, start:stop], None, *self.settings))
        return parts

    def _slice(self, x: Tensor, start: int, stop: int, channels: int) -> Tensor:
        if not self.convolution:
            return x[..., start:stop]
        if start == 0 and stop == channels:
            return x
        grouped = x.reshape(x.shape[0], self.groups, channels, *x.shape[2:])[:, :, start:stop]
        return grouped.flatten(1, 2)


def _whole(value: Tensor) -> Tensor:
    """Take the last bits of float arithmetic away; gradients pass."""
    return value + (torch.round(value.detach()) - value.detach())
