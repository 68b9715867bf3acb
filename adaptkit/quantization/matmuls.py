"""Linear layers in an ONNX graph, in the forms that ONNX Runtime has integer or four-bit kernels for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_Array = np.ndarray[Any, Any]


def multiply_blocks(graph: onnx.GraphProto) -> None:
    """Write x Wᵀ + b, W in blocks, as MatMul of x and the transposed integers: ONNX Runtime fuses only that form.

    Args:
        graph: Changed in place; convolutions stay, they compute on the weights put back into float.
    """
    view = _View(graph)
    for node in view.layers():
        back = view.weight(node)
        if back is None or not any(a.name == "block_size" for a in back.attribute):
            continue
        constants = [view.constants[name] for name in back.input]
        turned = [_transposed(tensor) for tensor in constants]
        for tensor in turned:
            if tensor.name not in view.constants:
                graph.initializer.append(tensor)
                view.constants[tensor.name] = tensor
        block = next(a.i for a in back.attribute if a.name == "block_size")
        names, weight = [tensor.name for tensor in turned], f"{back.output[0]}_transposed"
        nodes = [
            helper.make_node("DequantizeLinear", names, [weight], f"{back.name}_transposed", axis=0, block_size=block),
            *_product(node, [node.input[0], weight], "MatMul"),
        ]
        view.replace(node, nodes)


def multiply_dynamic(graph: onnx.GraphProto) -> None:
    """Write x Wᵀ + b, the range of x found in every call, as MatMulInteger: (s_x · s_w) · Σ (q_x − z) q_w + b.

    Args:
        graph: Changed in place.
    """
    view = _View(graph)
    for node in view.layers():
        held, back = view.makers.get(node.input[0]), view.weight(node)
        source = view.makers.get(held.input[0]) if held is not None else None
        if held is None or back is None or source is None or source.op_type != "DynamicQuantizeLinear":
            continue
        integers, scale = _transposed(view.constants[back.input[0]]), view.constants[back.input[1]]
        if integers.name not in view.constants:
            graph.initializer.append(integers)
            view.constants[integers.name] = integers
        stem = node.name or node.output[0]
        found = helper.make_node(
            "MatMulInteger", [held.input[0], integers.name, held.input[2]], [f"{stem}_sums"], f"{stem}_sums"
        )
        cast = helper.make_node("Cast", [f"{stem}_sums"], [f"{stem}_float"], f"{stem}_float", to=TensorProto.FLOAT)
        scales = helper.make_node("Mul", [held.input[1], scale.name], [f"{stem}_scales"], f"{stem}_scales")
        factors = [f"{stem}_float", f"{stem}_scales"]
        view.replace(node, [found, cast, scales, *_product(node, factors, "Mul")])


class _View:
    """The graph with its producers and constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}

    def layers(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type in ("Gemm", "MatMul")]

    def weight(self, layer: onnx.NodeProto) -> onnx.NodeProto | None:
        """Find the DequantizeLinear behind a layer's transposed weight."""
        maker: onnx.NodeProto | None = self.makers.get(layer.input[1])
        turned = layer.op_type == "Gemm" and any(a.name == "transB" and a.i == 1 for a in layer.attribute)
        if maker is not None and maker.op_type == "Transpose":
            maker, turned = self.makers.get(maker.input[0]), not turned
        if not turned or maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in self.constants:
            return None
        return maker

    def replace(self, node: onnx.NodeProto, by: list[onnx.NodeProto]) -> None:
        position = list(self.graph.node).index(node)
        self.graph.node.remove(node)
        for offset, one in enumerate(by):
            self.graph.node.insert(position + offset, one)


def _product(layer: onnx.NodeProto, factors: list[str], kind: str) -> list[onnx.NodeProto]:
    """Multiply, and add the layer's bias if it has one; the last node makes the layer's output."""
    if len(layer.input) < 3:
        return [helper.make_node(kind, factors, list(layer.output), layer.name)]
    product = f"{layer.output[0]}_product"
    return [
        helper.make_node(kind, factors, [product], layer.name),
        helper.make_node("Add", [product, layer.input[2]], list(layer.output), f"{layer.name}_bias"),
    ]


def _transposed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    value: _Array = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
    return numpy_helper.from_array(value, f"{tensor.name}_transposed")
