"""What each layer costs the output when its weights get few bits: measured, one layer at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from adaptkit.errors import ModelError
from adaptkit.metrics.task import first_output, is_number
from adaptkit.quantization.accelerator import LayerShape
from adaptkit.quantization.capture import fixed_values
from adaptkit.quantization.correct import quantized_layers
from adaptkit.quantization.plan import Grid
from adaptkit.quantization.simulate import FakeQuantize, QuantizedModel
from adaptkit.quantization.weights import is_pruned, weight_grid


@torch.no_grad()
def sensitivities(
    quantized: QuantizedModel, bits: Sequence[int], samples: Sequence[tuple[Tensor, ...]]
) -> dict[str, list[float]]:
    """Measure, for each layer and width, how far the outputs move when that layer alone has weights of that width.

    The distance is KL(exact ‖ quantized) of the softmax over the last dimension, averaged over the samples, against
    the model whose weights have 8 bits; what is below that of 8 bits counts as none. Of a model that gives one number a
    sample it is the squared difference.

    Args:
        quantized: With weights of 8 bits and rounded activations.
        bits: Widths to try.
        samples: Inputs, in batches.

    Returns:
        Name of the layer in the graph to one figure for each width.

    Raises:
        ModelError: The model returns no scores of N × classes.
    """
    module = quantized.simulator.module
    exact = [class_scores(quantized.model(*inputs)) for inputs in samples]
    base = _divergence(quantized, samples, exact)
    found: dict[str, list[float]] = {}
    for layer in quantized_layers(module):
        own = _rounding(layer, module)
        weight = _weight(layer, quantized)
        found[layer.name] = []
        for width in bits:
            grid = weight_grid(weight, width, own.grid.axis is not None)
            try:
                setattr(module, _name(layer), FakeQuantize(grid))
                found[layer.name].append(max(_divergence(quantized, samples, exact) - base, 0.0))
            finally:
                setattr(module, _name(layer), own)
    return found


def pruned_layers(quantized: QuantizedModel) -> set[str]:
    """Name the layers in the graph whose weights were pruned, which one bit cannot keep at zero."""
    values = fixed_values(quantized.simulator.captured, quantized.model)
    layers = quantized_layers(quantized.simulator.module)
    return {layer.name for layer in layers if is_pruned(values[_weight_name(layer)])}


def class_scores(output: Any) -> Tensor:
    """Take out of what a model returns the scores that exact and quantized model are compared by.

    Raises:
        ModelError: They are not N × classes.
    """
    scores = first_output(output)
    if scores.dim() < 2:
        raise ModelError(
            "the quantized model is compared with the float one by scores of N × classes; "
            f"this model returns a tensor of shape {tuple(scores.shape)}"
        )
    return scores


def weight_bytes(grid: Grid, weights: int) -> int:
    """Count the bytes of packed weights with their scales.

    Example:
        >>> weight_bytes(Grid((1.0,), (0,), bits=3), 20)
        13
    """
    return grid.bits * -(-weights // 8) + 4 * len(grid.scale)


def layer_shapes(quantized: QuantizedModel, tile: int | None = None) -> dict[str, LayerShape]:
    """Say what each quantized layer computes for one sample.

    Args:
        quantized: The model.
        tile: Input channels that are summed before a partial sum is kept; all where None.
    """
    shapes = {}
    for layer in quantized_layers(quantized.simulator.module):
        weight = _weight(layer, quantized)
        source = layer.args[0]
        assert isinstance(source, fx.Node)
        outputs, inputs = _values(layer), _values(source.args[0])
        tiles = 1 if tile is None else -(-weight.shape[1] // tile)
        shapes[layer.name] = LayerShape(outputs * weight[0].numel(), inputs, weight.numel(), outputs, tiles)
    return shapes


def _values(node: object) -> int:
    """Count the values of an activation for one sample; the batch is the free dimension, wherever it stands."""
    assert isinstance(node, fx.Node)
    if node.op == "call_module":
        return _values(node.args[0])
    counts = [_values_of_one(size) for size in node.meta["val"].shape]
    return math.prod(counts)


def _values_of_one(size: int | torch.SymInt) -> int:
    """Give a size for a batch of one: the captured one is an expression of the batch, such as 16 s."""
    if not isinstance(size, torch.SymInt):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def _divergence(quantized: QuantizedModel, samples: Sequence[tuple[Tensor, ...]], exact: Sequence[Tensor]) -> float:
    total, count = 0.0, 0
    for inputs, wanted in zip(samples, exact, strict=True):
        output = first_output(quantized.simulator.run(quantized.model, inputs))
        total, count = total + float(_distance(output, wanted)), count + wanted.numel() // wanted.shape[-1]
    return total / count


def _distance(output: Tensor, wanted: Tensor) -> Tensor:
    if is_number(tuple(wanted.shape[1:])):
        return F.mse_loss(output, wanted, reduction="sum")
    return F.kl_div(F.log_softmax(output, -1), F.log_softmax(wanted, -1), reduction="sum", log_target=True)


def _name(layer: fx.Node) -> str:
    rounding = layer.args[1]
    assert isinstance(rounding, fx.Node)
    return str(rounding.target)


def _rounding(layer: fx.Node, module: fx.GraphModule) -> FakeQuantize:
    rounding = getattr(module, _name(layer))
    assert isinstance(rounding, FakeQuantize)
    return rounding


def _weight(layer: fx.Node, quantized: QuantizedModel) -> Tensor:
    value: Tensor = fixed_values(quantized.simulator.captured, quantized.model)[_weight_name(layer)]
    return value


def _weight_name(layer: fx.Node) -> str:
    rounding = layer.args[1]
    assert isinstance(rounding, fx.Node)
    source = rounding.args[0]
    assert isinstance(source, fx.Node)
    return source.name
