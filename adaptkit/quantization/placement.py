"""Which tensors of a captured graph become integers, so that ONNX Runtime runs whole stretches in integers."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx

from adaptkit.quantization.capture import Captured

aten = torch.ops.aten
CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default, aten.conv2d.padding}
LAYERS = CONVOLUTIONS | {aten.linear.default}
# A layer's activation function that only clips: ONNX Runtime leaves it to the rounding that follows.
CLIPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default}
CLIPS_ABOVE = CLIPS - {aten.relu.default, aten.clamp_min.default}
# These only move values about, and so keep the grid of their input.
MOVES = {
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int, aten.permute.default,
    aten.transpose.int, aten.t.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default, aten.slice.Tensor, aten.select.int, aten.clone.default, aten.contiguous.default,
    aten.alias.default, aten.expand.default, aten.max_pool2d.default, aten.dropout.default,
}  # fmt: skip
_MEANS = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default}
_PAIRS = {aten.add.Tensor, aten.mul.Tensor}
_JOINS = {aten.cat.default}
_SPLITS = {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default}
_PADS = {aten.pad.default, aten.constant_pad_nd.default}


@dataclass
class Placement:
    """What is to be quantized.

    Args:
        layers: Convolutions and linear layers that get integer weights, in graph order.
        groups: Every quantized tensor to the tensor whose grid it uses; a member that is its own root has its own grid.
    """

    layers: list[fx.Node] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)


def is_layer(node: fx.Node, fixed: set[str]) -> bool:
    """Whether a node is a convolution or linear layer with weights of its own and an input that varies."""
    if node.target not in LAYERS:
        return False
    x, weight = node.args[0], node.args[1]
    bias = node.args[2] if len(node.args) > 2 else None
    own = isinstance(weight, fx.Node) and weight.name in fixed and (bias is None or getattr(bias, "name", "") in fixed)
    return own and isinstance(x, fx.Node) and x.name not in fixed


def moved_from(node: fx.Node) -> fx.Node | None:
    """Name the tensor whose values (or zeros) a node holds in another order, None where it computes new ones."""
    source = node.args[0] if node.args else None
    if node.target is operator.getitem and isinstance(source, fx.Node) and source.target in _SPLITS:
        source = source.args[0]
    elif node.target in _PADS:
        value = node.args[3] if node.target == aten.pad.default and len(node.args) > 3 else None
        constant = node.target != aten.pad.default or len(node.args) < 3 or node.args[2] == "constant"
        if not constant or value or (node.target != aten.pad.default and len(node.args) > 2 and node.args[2]):
            return None
    elif node.target not in MOVES:
        return None
    return source if isinstance(source, fx.Node) else None


def place(captured: Captured, layers: list[fx.Node], fixed: set[str]) -> Placement:
    """Choose the quantized tensors for given layers.

    Every layer reads integers; a convolution also writes them, behind its ReLU or Clip if it has one. Sums, products,
    concatenations and poolings of integers stay integers, and whatever only moves values keeps its grid. The inputs and
    the result of a concatenation share one grid, so that joining is copying. Everything else stays float.

    Args:
        captured: The graph, normalizations folded.
        layers: The layers to quantize.
        fixed: Names of the nodes that depend on parameters alone.
    """
    integer: set[str] = set()
    for node in captured.graph.nodes:
        if (node in layers and node.target in CONVOLUTIONS) or _stays_integer(node, integer, fixed):
            integer.add(node.name)
    quantized = {node.name for node in captured.graph.nodes if node.name in integer and not _waits_for_clip(node)}
    for layer in layers:
        x = layer.args[0]
        while isinstance(x, fx.Node) and x.name not in quantized:
            quantized.add(x.name)
            source = x.args[0] if x.target in _MEANS else moved_from(x)
            if not isinstance(source, fx.Node) or len(source.users) > 1:
                break
            x = source
    return Placement(layers, _groups(captured.graph, quantized))


def _stays_integer(node: fx.Node, integer: set[str], fixed: set[str]) -> bool:
    if node.op != "call_function":
        return False
    sources = [source for source in node.all_input_nodes if "sym_size" not in source.name]
    if node.target in _PAIRS:
        sources = [source for source in sources if source.name not in fixed]
        if len(sources) != len({str(argument) for argument in node.args[:2]}) or node.kwargs:
            return False
    elif node.target in CLIPS or node.target in _MEANS:
        sources = sources[:1]
    elif node.target not in _JOINS:
        source = moved_from(node)
        sources = [] if source is None else [source]
    return bool(sources) and all(source.name in integer for source in sources)


def _waits_for_clip(node: fx.Node) -> bool:
    if node.target not in CONVOLUTIONS and node.target not in _PAIRS:
        return False
    return len(node.users) == 1 and next(iter(node.users)).target in CLIPS


def _groups(graph: fx.Graph, quantized: set[str]) -> dict[str, str]:
    root = {node.name: node.name for node in graph.nodes if node.name in quantized}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for node in graph.nodes:
        sources = node.all_input_nodes if node.target in _JOINS else [moved_from(node)]
        for source in sources:
            if node.name in root and source is not None and source.name in root:
                root[find(node.name)] = find(source.name)
    return {name: find(name) for name in root}
