"""Bias correction: what rounding the weights shifts on average is given back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx

from adaptkit.quantization.capture import fixed_values, observe
from adaptkit.quantization.fold import folded_bias
from adaptkit.quantization.placement import CONVOLUTIONS
from adaptkit.quantization.simulate import FakeQuantize, QuantizedModel


@torch.no_grad()
def correct_biases(quantized: QuantizedModel, samples: Iterable[tuple[Tensor, ...]]) -> int:
    """Subtract from every quantized layer the mean error that its rounded weights cause, in place.

    b ← b + (W − Ŵ) E[x̂] a channel, x̂ being the quantized input over the calibration data (Nagel et al. 2019,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, with measured means). The
    correction goes into the layer's own bias or into the shift of the normalization folded into it; a layer with
    neither, or one that shares it, is left alone.

    Args:
        quantized: The model whose float biases are corrected.
        samples: Inputs.

    Returns:
        The number of layers corrected.
    """
    captured, module = quantized.simulator.captured, quantized.simulator.module
    biases = {layer: name for layer in quantized_layers(module) if (name := bias_parameter(layer, captured.state))}
    means = _means(quantized, {(_source(layer, 0), layer.target in CONVOLUTIONS) for layer in biases}, samples)
    values = fixed_values(captured, quantized.model)
    for layer, name in biases.items():
        weight = values[_source(_source(layer, 1), 0).name]
        rounded = getattr(module, str(_source(layer, 1).target))(weight)
        spatial = layer.target in CONVOLUTIONS
        mean = means[_source(layer, 0), spatial]
        shift = layer.target(mean, weight - rounded, None, *layer.args[3:])  # type: ignore[operator]
        channel = 1 if spatial else shift.dim() - 1
        quantized.model.get_parameter(name).add_(shift.mean([d for d in range(shift.dim()) if d != channel]))
    return len(biases)


def quantized_layers(module: fx.GraphModule) -> list[fx.Node]:
    """List the layers of a simulator's graph whose weights are rounded."""

    def rounds_weight(node: fx.Node) -> bool:
        weight = node.args[1] if len(node.args) > 1 else None
        if not isinstance(weight, fx.Node) or weight.op != "call_module" or node.op != "call_function":
            return False
        return str(weight.target).endswith("_weight") and isinstance(getattr(module, str(weight.target)), FakeQuantize)

    return [node for node in module.graph.nodes if rounds_weight(node)]


def bias_parameter(layer: fx.Node, state: dict[str, str]) -> str:
    """Name the parameter a correction can be added to, '' where there is none."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    source = bias.args[0] if isinstance(bias, fx.Node) and bias.op == "call_module" else None
    if isinstance(source, fx.Node) and source.target == folded_bias:
        source = source.args[1][1]  # type: ignore[index]
    if not isinstance(source, fx.Node) or source.op != "placeholder" or len(source.users) > 1:
        return ""
    return state.get(source.name, "")


def _means(
    quantized: QuantizedModel, wanted: set[tuple[fx.Node, bool]], samples: Iterable[tuple[Tensor, ...]]
) -> dict[tuple[fx.Node, bool], Tensor]:
    """Average activations: over the first dimension for convolutions, over all but the last for linear layers.

    The first dimension need not be the batch: it may be windows of images, or time.
    """
    sums: dict[tuple[fx.Node, bool], Tensor] = {}
    rows: dict[tuple[fx.Node, bool], int] = {}

    def record(node: fx.Node, value: Tensor) -> None:
        for spatial in (True, False):
            if (key := (node, spatial)) in wanted:
                values = value if spatial else value.reshape(-1, value.shape[-1])
                total = values.sum(0, keepdim=True, dtype=torch.float64)
                sums[key] = sums[key] + total if key in sums else total
                rows[key] = rows.get(key, 0) + len(values)

    for inputs in samples:
        observe(quantized.simulator.module, quantized.simulator.captured.arguments(quantized.model, inputs), record)
    return {key: (total / rows[key]).float() for key, total in sums.items()}


def _source(node: fx.Node, position: int) -> fx.Node:
    source = node.args[position]
    assert isinstance(source, fx.Node)
    return source
