"""How large partial sums get on data."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, fx

from adaptkit.errors import TargetError
from adaptkit.quantization.accumulators import PartialSums
from adaptkit.quantization.capture import observe
from adaptkit.quantization.correct import quantized_layers
from adaptkit.quantization.plan import Accumulator
from adaptkit.quantization.simulate import QuantizedModel


@torch.no_grad()
def largest_sums(quantized: QuantizedModel, samples: Iterable[tuple[Tensor, ...]], tile: int) -> dict[str, float]:
    """Find the largest magnitude that a partial sum of each layer reaches, added up exactly.

    Args:
        quantized: The model, without accumulators.
        samples: Inputs.
        tile: Input channels summed at once.

    Returns:
        Name of the layer in the graph to the magnitude.
    """
    module = quantized.simulator.module
    sums = {layer: _sums(layer, quantized, tile) for layer in quantized_layers(module)}
    found = {layer.name: 0.0 for layer in sums}
    values: dict[fx.Node, Tensor] = {}
    wanted = {argument for layer in sums for argument in layer.args[:2]}

    def record(node: fx.Node, value: Tensor) -> None:
        if node in wanted:
            values[node] = value
        if node in sums:
            x, weight = node.args[:2]
            total = torch.zeros(())
            for part in sums[node].tile_sums(values[x], values[weight]):  # type: ignore[index]
                total = total + part
                found[node.name] = max(found[node.name], float(total.abs().max()))

    for inputs in samples:
        observe(module, quantized.simulator.captured.arguments(quantized.model, inputs), record)
        values.clear()
    return found


def needed_shift(largest: float, bits: int, tiles: int = 1) -> int:
    """Say how many of the lowest bits must go so that sums up to `largest` fit two's complement of `bits` bits.

    Where bits go, each of the parts of a sum is rounded, by up to half a step each.

    Args:
        largest: Of the exact sums, in magnitude.
        bits: Of the accumulator.
        tiles: Parts that are added up.

    Raises:
        TargetError: The roundings alone overflow.

    Example:
        >>> needed_shift(127, 8), needed_shift(128, 8), needed_shift(255, 8), needed_shift(1000, 8)
        (0, 1, 2, 3)
    """
    limit = 1 << bits - 1
    if largest < limit:
        return 0
    if tiles / 2 >= limit:
        raise TargetError(f"{tiles} partial sums cannot be kept in {bits} bits: raise tile or accumulator_bits")
    return math.floor(math.log2(largest / (limit - tiles / 2))) + 1


def _sums(layer: fx.Node, quantized: QuantizedModel, tile: int) -> PartialSums:
    keys, tensors = quantized.simulator.keys, quantized.plan.tensors
    x, weight = layer.args[:2]
    assert isinstance(x, fx.Node)
    assert isinstance(weight, fx.Node)
    grids = tensors[keys[str(x.target)]], tensors[keys[str(weight.target)]]
    return PartialSums(layer.target, tuple(layer.args[3:]), *grids, Accumulator(24, tile))  # type: ignore[arg-type]
