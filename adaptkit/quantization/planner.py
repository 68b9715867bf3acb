"""From histograms and weights to the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import ModelError
from adaptkit.quantization.capture import Captured, fixed_values, module_of
from adaptkit.quantization.placement import Placement, aten, is_layer, place
from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.ranges import Histogram, Method, activation_grid, find_range
from adaptkit.quantization.weights import bias_grid, is_depthwise, is_pruned, roomy, weight_grid


@dataclass(frozen=True)
class Rounding:
    """How grids are chosen; the fields are those of the techniques.

    Args:
        ranges: How the range of an activation is found.
        percentile: Share of the values to keep, in percent, for ranges="percentile".
        signed: Whether activations are int8 instead of uint8.
        symmetric: Whether the zero of an activation's grid lies in its middle.
        activation_bits: 2 to 8.
        weight_bits: 1 to 8, or None for eight bits that cannot saturate.
        layer_bits: Names of layers in the graph that have other weight bits.
        per_channel: One weight scale an output channel, or one a layer.
    """

    ranges: Method = "mse"
    percentile: float = 99.99
    signed: bool = False
    symmetric: bool = False
    activation_bits: int = 8
    weight_bits: int | None = None
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    per_channel: bool = True


def place_layers(captured: Captured, model: nn.Module, modules: set[str]) -> Placement:
    """Choose the quantized tensors, where the layers to quantize are those whose weights belong to these modules.

    Args:
        captured: The graph, normalizations folded.
        model: Holds the parameters.
        modules: Names of modules of the model.

    Raises:
        ModelError: Weights or biases of a layer are not finite.
    """
    values = fixed_values(captured, model)
    fixed = set(values)
    layers = [
        node for node in captured.graph.nodes if is_layer(node, fixed) and owner_of(captured, node.args[1]) in modules
    ]
    for layer in layers:
        parts = [values[part.name] for part in layer.args[1:3] if isinstance(part, fx.Node)]
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise ModelError(
                f"{owner_of(captured, layer.args[1])} has weights or biases that are NaN or infinite: "
                "quantize the model as it was before its training diverged"
            )
    return place(captured, layers, fixed)


def other_kinds(captured: Captured, modules: Mapping[str, nn.Module], placement: Placement) -> list[str]:
    """Name the modules with weights that stay float as no layer of the placement has them, each with its kind.

    Args:
        captured: The graph.
        modules: Where to look, by name.
        placement: What is quantized.
    """
    quantized = {owner_of(captured, layer.args[1]) for layer in placement.layers}
    used = {captured.owner(node.name) for node in captured.graph.nodes if node.op == "placeholder" and node.users}
    # A weight that an embedding shares with a linear layer has one owner, and is stored twice.
    looked_up = {module_of(node) for node in captured.graph.nodes if node.target == aten.embedding.default}
    return [
        f"{name} ({type(module).__name__})"
        for name, module in modules.items()
        if name in (used - quantized) | looked_up and _has_weight(module)
    ]


def _has_weight(module: nn.Module) -> bool:
    own = module.named_parameters(recurse=False)
    return any(name.startswith("weight") and parameter.dim() > 1 for name, parameter in own)


def make_plan(
    captured: Captured, model: nn.Module, placement: Placement, found: dict[str, Histogram], rounding: Rounding
) -> QuantizationPlan:
    """Choose a grid for every activation, weight and bias.

    Args:
        captured: The graph, normalizations folded.
        model: Holds the parameters.
        placement: The tensors to quantize.
        found: A histogram for every group of activations.
        rounding: How grids are chosen.

    Raises:
        ModelError: A layer with pruned weights is to get one bit.
    """
    shared = {group: _activation(histogram, rounding) for group, histogram in found.items()}
    tensors = {name: shared[group] for name, group in placement.groups.items()}
    values = fixed_values(captured, model)
    for layer in placement.layers:
        tensors.update(_layer_grids(layer, values, tensors, rounding))
    return QuantizationPlan(tensors)


def _activation(histogram: Histogram, rounding: Rounding) -> Grid:
    bits = rounding.activation_bits
    interval = find_range(histogram, rounding.ranges, rounding.percentile, levels=1 << bits)
    return activation_grid(interval, rounding.signed, bits, rounding.symmetric)


def _layer_grids(
    layer: fx.Node, values: dict[str, Tensor], tensors: dict[str, Grid], rounding: Rounding
) -> dict[str, Grid]:
    x, weight, *rest = layer.args
    bias = rest[0] if rest else None
    assert isinstance(x, fx.Node)
    assert isinstance(weight, fx.Node)
    value, groups = values[weight.name], layer.args[6] if len(layer.args) > 6 else 1
    depthwise = is_depthwise(tuple(value.shape), int(str(groups)))
    bits = rounding.layer_bits.get(layer.name, rounding.weight_bits)
    if bits == 1 and is_pruned(value):
        where = module_of(layer) or layer.name
        raise ModelError(f"{where} has pruned weights, which one bit cannot keep at zero: give it 2 bits or more")
    grid = weight_grid(value, bits, rounding.per_channel, depthwise)
    if not isinstance(bias, fx.Node):
        return {f"{layer.name}.weight": grid}
    input_scale = tensors[x.name].scale[0]
    grid = roomy(grid, values[bias.name], input_scale)
    return {f"{layer.name}.weight": grid, f"{layer.name}.bias": bias_grid(grid, input_scale)}


def owner_of(captured: Captured, weight: object) -> str | None:
    """Name the module that holds the parameters a weight is made of; the first one counts."""
    if not isinstance(weight, fx.Node):
        return None
    if weight.op == "placeholder":
        return captured.owner(weight.name)
    return next((name for source in weight.all_input_nodes if (name := owner_of(captured, source))), None)
