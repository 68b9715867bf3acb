"""What an ONNX file computes, node by node: MACs and bytes, from the shapes of a real run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from adaptkit.errors import ModelError
from adaptkit.export.names import layer_of, producers
from adaptkit.runtime.session import open_session

Shape: TypeAlias = tuple[int, ...]

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


def graph_cost(proto: onnx.ModelProto) -> GraphCost:
    """Count what an ONNX model computes for one sample: Conv, Gemm, MatMul, Einsum and integer forms, QDQ graphs too.

    Shapes are those of a run on one sample of zeros, so nothing has to be inferred.

    Args:
        proto: A model whose inputs are free in the first dimension only.

    Raises:
        ModelError: Another input dimension is free, or ONNX Runtime cannot run the model.
    """
    graph = proto.graph
    nodes = [node for node in graph.node if _has_formula(node)]
    shapes = _shapes(proto, [name for node in nodes for name in (*_factors(node), node.output[0])])
    integers = _integer_values(graph)
    return GraphCost(
        nodes=tuple(_cost(node, shapes, integers) for node in nodes),
        weight_bytes=sum(numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer),
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


def _shapes(proto: onnx.ModelProto, names: list[str]) -> dict[str, Shape]:
    known = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    feeds = {value.name: zeros(value) for value in proto.graph.input if value.name not in known}
    known |= {name: value.shape for name, value in feeds.items()}
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    del changed.graph.output[:]
    wanted = [name for name in dict.fromkeys(names) if name not in known]
    if not wanted:
        return known
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    values = open_session(changed.SerializeToString(), threads=1).run(wanted, feeds)
    return known | {name: tuple(value.shape) for name, value in zip(wanted, values, strict=True)}


def zeros(value: onnx.ValueInfoProto) -> np.ndarray[Any, Any]:
    """Make one sample of zeros for an input.

    Raises:
        ModelError: A dimension other than the first is free.
    """
    kind = value.type.tensor_type
    free = [dim.dim_param for dim in kind.shape.dim[1:] if not dim.dim_value]
    if free:
        raise ModelError(f"input {value.name} has free dimensions besides the batch: {', '.join(free)}; fix them")
    shape = [dim.dim_value or 1 for dim in kind.shape.dim]
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
