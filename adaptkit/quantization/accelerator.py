"""A model of an accelerator: what a layer takes in time and energy at given widths."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerShape:
    """What a layer computes for one sample.

    Args:
        macs: Multiplications, each with an addition.
        inputs: Values read.
        weights: Values read.
        outputs: Values made.
        tiles: Parts that the products of one output are summed in; a partial sum is kept after each.
    """

    macs: int
    inputs: int
    weights: int
    outputs: int
    tiles: int = 1


@dataclass(frozen=True)
class Widths:
    """Bits of a weight, of an input and of a partial sum."""

    weight: int = 8
    activation: int = 8
    accumulator: int = 32


@dataclass(frozen=True)
class Accelerator:
    """An array of multipliers with a buffer on the chip and memory beside it.

    A multiplier of 8 × 8 bits splits into narrower ones, down to 2 × 2 bits, whose widths are powers of two (as in
    Sharma et al. 2018, "Bit Fusion"). Energies are those of a 45 nm chip: Horowitz 2014, "Computing's energy problem",
    figure 1.1.9. Weights are read from memory once a sample, activations and partial sums stay on the chip. Computing
    and reading overlap. Latencies and energies of real chips differ; ratios between widths are what the model is for.

    Args:
        multipliers: 8 × 8 bit multiplications a cycle.
        memory_bytes: From memory, a cycle.
        buffer_bytes: To and from the buffer, a cycle.
        hertz: Cycles a second.
        multiply_pj: A multiplication of 8 × 8 bits; of others in proportion to the product of the widths.
        add_pj: An addition of 32 bits; of others in proportion.
        buffer_pj: A byte to or from the buffer (20 pJ for 64 bits from 32 KB).
        memory_pj: A byte from memory (1.28 nJ for 64 bits).
    """

    multipliers: int = 256
    memory_bytes: float = 16.0
    buffer_bytes: float = 64.0
    hertz: float = 500e6
    multiply_pj: float = 0.2
    add_pj: float = 0.1
    buffer_pj: float = 2.5
    memory_pj: float = 160.0

    def seconds(self, layer: LayerShape, widths: Widths) -> float:
        """Time of one sample: the longest of computing, reading weights and moving values on the chip.

        Example:
            >>> Accelerator().seconds(LayerShape(256 * 500, 1, 1, 1), Widths()) == 1e-6
            True
        """
        split = fused_width(widths.weight) * fused_width(widths.activation) / 64
        cycles = (
            layer.macs * split / self.multipliers,
            layer.weights * widths.weight / 8 / self.memory_bytes,
            _buffered_bytes(layer, widths) / self.buffer_bytes,
        )
        return max(cycles) / self.hertz

    def millijoules(self, layer: LayerShape, widths: Widths) -> float:
        """Energy of one sample: multiplications, additions, buffer and memory."""
        multiply = self.multiply_pj * widths.weight * widths.activation / 64
        add = self.add_pj * widths.accumulator / 32
        moved = _buffered_bytes(layer, widths) * self.buffer_pj + layer.weights * widths.weight / 8 * self.memory_pj
        return (layer.macs * (multiply + add) + moved) * 1e-9


def fused_width(bits: int) -> int:
    """Round up to a width that a multiplier splits into: 2, 4 or 8.

    Example:
        >>> [fused_width(bits) for bits in (1, 2, 3, 5)]
        [2, 2, 4, 8]
    """
    return max(2, 1 << math.ceil(math.log2(bits)))


def _buffered_bytes(layer: LayerShape, widths: Widths) -> float:
    """Inputs read, outputs written, and a partial sum written and read between two tiles."""
    sums = 2 * (layer.tiles - 1) * layer.outputs * widths.accumulator
    return ((layer.inputs + layer.outputs) * widths.activation + sums) / 8
