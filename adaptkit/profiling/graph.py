"""What an ONNX file computes, node by node: MACs and bytes, from the shapes of a real run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from adaptkit.export.files import read_model
from adaptkit.export.names import layer_of, producers
from adaptkit.export.outside import tensor_bytes
from adaptkit.profiling.shapes import Shape, run_values

_HEAVY = ("LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "If", "Loop", "Scan", "DeformConv")
_FLOAT, _BYTE = 4, 1


@dataclass(frozen=True)
class NodeCost:
    """One node that multiplies, for one sample.

    Args:
        name: Of the node.
        layer: The module it came from, the node's own name where unknown.
        macs: Multiply-accumulate operations.
        integer: Whether both factors are 8-bit integers (before or after QDQ).
        depthwise: Whether every channel has a filter of its own.
        channels: Of input and output.
        activation_bytes: Read and written, in the type the kernel uses.
    """

    name: str
    layer: str
    macs: int
    integer: bool
    depthwise: bool
    channels: tuple[int, int]
    activation_bytes: int


@dataclass(frozen=True)
class GraphCost:
    """What one sample costs.

    Args:
        nodes: The nodes that multiply.
        weight_bytes: Of all constants of the graph.
        uncounted: Types of operations that compute and have no formula.
    """

    nodes: tuple[NodeCost, ...]
    weight_bytes: int
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Of all nodes."""
        return sum(node.macs for node in self.nodes)

    @property
    def integer_macs(self) -> int:
        """Of the nodes that multiply 8-bit integers."""
        return sum(node.macs for node in self.nodes if node.integer)

    @property
    def activation_bytes(self) -> int:
        """Read and written by the nodes that multiply; the rest is taken as fused with them."""
        return sum(node.activation_bytes for node in self.nodes)

    def macs_per_layer(self) -> dict[str, int]:
        """Sum the MACs by layer, in the order of the graph."""
        sums: dict[str, int] = {}
        for node in self.nodes:
            sums[node.layer] = sums.get(node.layer, 0) + node.macs
        return sums


def file_cost(path: Path) -> GraphCost:
    """Count what an ONNX file computes for one sample; weights beside it are looked at, and not copied.

    Raises:
        ModelError: As `read_model` and `graph_cost`.
    """
    return graph_cost(read_model(path, weights_beside=False), path.parent)


def graph_cost(proto: onnx.ModelProto, weights_in: Path | None = None) -> GraphCost:
    """Count what an ONNX model computes for one sample: Conv, Gemm, MatMul, Einsum and integer forms, QDQ graphs too.

    Shapes are those of a run on one sample of zeros, so nothing has to be inferred.

    Args:
        proto: A model whose inputs are free in the first dimension only; one that fixes its batch counts as a whole.
        weights_in: The folder of weights that are not in the model itself.

    Raises:
        ModelError: Another input dimension is free, or ONNX Runtime cannot run the model.
    """
    graph = proto.graph
    nodes = [node for node in graph.node if _has_formula(node)]
    names = [name for node in nodes for name in (*_factors(node), node.output[0])]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {name: value.shape for name, value in run_values(proto, names, weights_in=weights_in).items()}
    integers = _integer_values(graph)
    return GraphCost(
        nodes=tuple(_cost(node, shapes, integers) for node in nodes),
        weight_bytes=sum(tensor_bytes(tensor) for tensor in graph.initializer),
        uncounted=tuple(sorted({node.op_type for node in graph.node if _is_uncounted(node)})),
    )


def _cost(node: onnx.NodeProto, shapes: Mapping[str, Shape], integers: set[str]) -> NodeCost:
    data, weight = _factors(node)
    output = shapes[node.output[0]]
    integer = "Integer" in node.op_type or node.op_type.startswith("QLinear") or {data, weight} <= integers
    size = _BYTE if integer else _FLOAT
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    convolution = "Conv" in node.op_type
    channel = 1 if convolution else -1
    return NodeCost(
        name=node.name,
        layer=layer_of(node.name) or node.name.lstrip("/"),
        macs=_RULES[node.op_type](shapes[data], shapes[weight], output, attributes),
        integer=integer,
        depthwise=convolution and attributes.get("group", 1) == shapes[data][1] > 1,
        channels=(shapes[data][channel], output[channel]),
        activation_bytes=size * (math.prod(shapes[data]) + math.prod(output)),
    )


def _convolution(data: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    del data, attributes
    return math.prod(output) * math.prod(weight[1:])


def _transposed_convolution(data: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    del output, attributes
    return math.prod(data) * math.prod(weight[1:])


def _product(data: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    del weight
    return math.prod(output) * data[0 if attributes.get("transA") else -1]


def _einsum(data: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    del output
    terms = attributes["equation"].decode().replace(" ", "").partition("->")[0].split(",")
    sizes = dict(zip("".join(terms), (*data, *weight), strict=True))
    return math.prod(sizes.values())


def _has_formula(node: onnx.NodeProto) -> bool:
    if node.op_type != "Einsum":
        return node.op_type in _RULES
    return len(node.input) == 2 and b"..." not in node.attribute[0].s  # a product of two, its indices all named


def _is_uncounted(node: onnx.NodeProto) -> bool:
    return node.op_type in _HEAVY or (node.op_type == "Einsum" and not _has_formula(node))


_RULES: dict[str, Callable[[Shape, Shape, Shape, Mapping[str, Any]], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product,
    "Einsum": _einsum,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
}


def _factors(node: onnx.NodeProto) -> tuple[str, str]:
    second = 3 if node.op_type.startswith("QLinear") else 1
    return node.input[0], node.input[second]


def _integer_values(graph: onnx.GraphProto) -> set[str]:
    """List the values that come out of a DequantizeLinear of 8 bits, which kernels take as integers."""
    return {name for name, node in producers(graph).items() if node.op_type == "DequantizeLinear"}
