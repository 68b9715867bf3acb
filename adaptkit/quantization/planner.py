"""From histograms and weights to the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from adaptkit.quantization.capture import Captured, fixed_values
from adaptkit.quantization.placement import Placement, is_layer, place
from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.ranges import Histogram, Method, activation_grid, find_range
from adaptkit.quantization.weights import bias_grid, is_depthwise, roomy, weight_grid


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
    """
    fixed = set(fixed_values(captured, model))
    layers = [
        node for node in captured.graph.nodes if is_layer(node, fixed) and _owner(captured, node.args[1]) in modules
    ]
    return place(captured, layers, fixed)


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
    grid = weight_grid(value, bits, rounding.per_channel, depthwise)
    if not isinstance(bias, fx.Node):
        return {f"{layer.name}.weight": grid}
    input_scale = tensors[x.name].scale[0]
    grid = roomy(grid, values[bias.name], input_scale)
    return {f"{layer.name}.weight": grid, f"{layer.name}.bias": bias_grid(grid, input_scale)}


def _owner(captured: Captured, weight: object) -> str | None:
    """Name the module that holds the parameters a weight is made of; the first one counts."""
    if not isinstance(weight, fx.Node):
        return None
    if weight.op == "placeholder":
        return captured.owner(weight.name)
    return next((name for source in weight.all_input_nodes if (name := _owner(captured, source))), None)
