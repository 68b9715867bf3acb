"""QuantizeLinear and DequantizeLinear nodes in an ONNX graph, from the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from adaptkit.errors import ModelError
from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.simulate import DOMAIN, MARKER

_Array = np.ndarray[Any, Any]


def insert_qdq(proto: onnx.ModelProto, plan: QuantizationPlan) -> onnx.ModelProto:
    """Replace the markers of an exported graph.

    An activation becomes Q → DQ; a weight or bias is stored as integers, followed by DQ (int32 for a bias, with
    scale s_x · s_w, as ONNX Runtime's integer kernels expect). Rounding is that of ONNX: half to even.

    Args:
        proto: What the exporter made of `QuantizedModel.export_model()`; unchanged by this.
        plan: The plan of that model.

    Raises:
        ModelError: A marker names a tensor that the plan does not have.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    _Inserter(graph, plan).run()
    _pool_means(graph)
    _pad_integers(graph)
    _drop_unused(graph)
    kept = [entry for entry in result.opset_import if entry.domain != DOMAIN]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    onnx.checker.check_model(result)
    return result


def to_integers(value: _Array, grid: Grid) -> _Array:
    """Round an array to the integers of a grid, in the type that stores them.

    Example:
        >>> to_integers(np.array([0.3, -9.0], dtype=np.float32), Grid((0.25,), (0,), bits=7))
        array([  1, -36], dtype=int8)
    """
    scale, zero = np.array(grid.scale, np.float32), np.array(grid.zero_point)
    if grid.axis is not None:
        shape = [-1 if axis == grid.axis else 1 for axis in range(value.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    # The torch kernels multiply by the inverse; the last bit decides where a value lies halfway.
    scaled = value * (np.float32(1) / scale) if grid.bits <= 8 else value.astype(np.float64) / scale
    integers: _Array = np.clip(np.rint(scaled) + zero, grid.lowest, grid.highest).astype(storage(grid))
    return integers


def storage(grid: Grid) -> type[np.generic]:
    """Say which integer type holds the grid."""
    if grid.bits > 8:
        return np.int32
    return np.int8 if grid.signed else np.uint8


class _Inserter:
    def __init__(self, graph: onnx.GraphProto, plan: QuantizationPlan) -> None:
        self.graph = graph
        self.plan = plan
        self.values = {tensor.name: tensor for tensor in graph.initializer}
        self.known = set(self.values)

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            nodes.extend(self._replacement(node) if node.domain == DOMAIN and node.op_type == MARKER else [node])
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _replacement(self, marker: onnx.NodeProto) -> list[onnx.NodeProto]:
        key = next(a.s.decode() for a in marker.attribute if a.name == "key")
        if key not in self.plan.tensors:
            raise ModelError(f"the exported graph quantizes {key}, which the plan does not have")
        grid = self.plan.tensors[key]
        source, target = marker.input[0], marker.output[0]
        parameters = [self._add(f"{key}_scale", _shaped(np.array(grid.scale, np.float32), grid))]
        parameters.append(self._add(f"{key}_zero_point", _shaped(np.array(grid.zero_point, storage(grid)), grid)))
        axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
        integers = f"{key}_quantized"
        back = helper.make_node("DequantizeLinear", [integers, *parameters], [target], f"{key}_dequantize", **axis)
        if source in self.values:
            self._add(integers, to_integers(numpy_helper.to_array(self.values[source]), grid))
            return [back]
        return [helper.make_node("QuantizeLinear", [source, *parameters], [integers], f"{key}_quantize", **axis), back]

    def _add(self, name: str, value: _Array) -> str:
        if name not in self.known:
            self.known.add(name)
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def _shaped(values: _Array, grid: Grid) -> _Array:
    return values if grid.axis is not None else values.reshape(())


def _pool_means(graph: onnx.GraphProto) -> None:
    """Write the mean over both sides of an image as GlobalAveragePool: only that has an integer kernel."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(int(axis) % 4 for axis in numpy_helper.to_array(constants[node.input[1]]))
        keeps = all(a.i == 1 for a in node.attribute if a.name == "keepdims")
        if axes == [2, 3] and keeps and ranks.get(node.output[0]) == 4:
            node.CopyFrom(helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], node.name))


def _pad_integers(graph: onnx.GraphProto) -> None:
    """Let DQ → Pad → Q pad the integers with their zero point: ONNX Runtime would run such a Pad in float."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    dropped: list[onnx.NodeProto] = []
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        before, after = makers.get(pad.input[0]), readers.get(pad.output[0], [])
        if before is None or before.op_type != "DequantizeLinear" or [n.op_type for n in after] != ["QuantizeLinear"]:
            continue
        pad.input[:] = [before.input[0], pad.input[1], after[0].input[2], *pad.input[3:]]
        pad.output[:] = after[0].output
        dropped.append(after[0])
    for node in dropped:
        graph.node.remove(node)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers nobody reads, and shapes of tensors that are gone."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not any(name in read for name in node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    made = {name for node in graph.node for name in node.output}
    types = [value for value in graph.value_info if value.name in made and not value.name.endswith("_quantized")]
    del graph.value_info[:]
    graph.value_info.extend(types)
