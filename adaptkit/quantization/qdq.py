"""QuantizeLinear and DequantizeLinear nodes in an ONNX graph, from the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptkit.errors import ModelError
from adaptkit.export.held import Held, array_of, check_graph, keep_only
from adaptkit.quantization.matmuls import multiply_blocks, multiply_dynamic
from adaptkit.quantization.packing import UNPACK, add_unpack, pack_bits, unpack_constants
from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.simulate import DOMAIN, MARKER

_Array = np.ndarray[Any, Any]
_BYTE = 8
_INTEGERS = {4: TensorProto.INT4, 8: TensorProto.INT8}
_BLOCK_OPSET, _BLOCK_IR = 21, 10
_HALF = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def insert_qdq(proto: onnx.ModelProto, plan: QuantizationPlan, held: Held | None = None) -> onnx.ModelProto:
    """Replace the markers of an exported graph.

    An activation becomes Q → DQ; a weight or bias is stored as integers, followed by DQ (int32 for a bias, with
    scale s_x · s_w, as ONNX Runtime's integer kernels expect). Rounding is that of ONNX: half to even. Weights of fewer
    than eight bits are packed (`packing`), except for blocks of four bits, which ONNX has a type for. A weight in 16
    bits of floating point is followed by a Cast, an input whose range is found in every call by MatMulInteger.

    Args:
        proto: What the exporter made of `QuantizedModel.export_model()`; unchanged by this.
        plan: The plan of that model.
        held: Large constants that are not in the model itself; those that integers replace are taken out.

    Raises:
        ModelError: A marker names a tensor that the plan does not have.
    """
    held = {} if held is None else held
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    _Inserter(graph, plan, held).run()
    multiply_blocks(graph)
    multiply_dynamic(graph)
    _pool_means(graph)
    _pad_integers(graph)
    _drop_unused(graph)
    for name in set(held) - {tensor.name for tensor in graph.initializer}:
        del held[name]
    _declare(result)
    check_graph(result)
    return result


def _declare(proto: onnx.ModelProto) -> None:
    """Name the operator sets the nodes are from: int4 and blocks came with 21, Unpack is our own."""
    kept = [entry for entry in proto.opset_import if entry.domain != DOMAIN]
    blocks = any(attribute.name == "block_size" for node in proto.graph.node for attribute in node.attribute)
    for entry in kept:
        if blocks and not entry.domain:
            entry.version = max(entry.version, _BLOCK_OPSET)
            proto.ir_version = max(proto.ir_version, _BLOCK_IR)
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    if any(node.op_type == UNPACK for node in proto.graph.node):
        add_unpack(proto)


def to_integers(value: _Array, grid: Grid) -> _Array:
    """Round an array to the integers of a grid, in the type that stores them.

    Example:
        >>> to_integers(np.array([0.3, -9.0], dtype=np.float32), Grid((0.25,), (0,), bits=7))
        array([  1, -36], dtype=int8)
    """
    scale, zero = np.array(grid.scale, np.float32), np.array(grid.zero_point)
    if grid.block is not None:
        scale = np.repeat(scale.reshape(len(value), -1), grid.block, 1)[:, : value[0].size].reshape(value.shape)
        zero = np.array(0)
    elif grid.axis is not None:
        shape = [-1 if axis == grid.axis else 1 for axis in range(value.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    # The torch kernels multiply by the inverse; the last bit decides where a value lies halfway.
    scaled = value * (np.float32(1) / scale) if grid.bits <= 8 else value.astype(np.float64) / scale
    rounded = 2 * np.floor(scaled / 2) + 1 if grid.odd else np.rint(scaled)
    integers: _Array = np.clip(rounded + zero, grid.lowest, grid.highest).astype(storage(grid))
    return integers


def storage(grid: Grid) -> type[np.generic]:
    """Say which integer type holds the grid."""
    if grid.bits > 8:
        return np.int32
    return np.int8 if grid.signed else np.uint8


class _Inserter:
    def __init__(self, graph: onnx.GraphProto, plan: QuantizationPlan, held: Held) -> None:
        self.held = held
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
        source, target = marker.input[0], marker.output[0]
        if key in self.plan.formats:
            return [self._half(key, source, target)]
        if key.endswith(".input"):
            found = [f"{key}_quantized", f"{key}_scale", f"{key}_zero_point"]
            # Only holds the place: `multiply_dynamic` takes both nodes into an integer product.
            held = helper.make_node("DequantizeLinear", found, [target], f"{key}_dequantize")
            return [helper.make_node("DynamicQuantizeLinear", [source], found, f"{key}_quantize"), held]
        if key not in self.plan.tensors:
            raise ModelError(f"the exported graph quantizes {key}, which the plan does not have")
        grid = self.plan.tensors[key]
        if source in self.values:
            return self._constant(key, array_of(self.values[source], self.held), grid, target)
        parameters, integers = self._parameters(key, grid), f"{key}_quantized"
        axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
        clips, source = self._clip(key, grid, source)
        return [
            *clips,
            helper.make_node("QuantizeLinear", [source, *parameters], [integers], f"{key}_quantize", **axis),
            helper.make_node("DequantizeLinear", [integers, *parameters], [target], f"{key}_dequantize", **axis),
        ]

    def _clip(self, key: str, grid: Grid, source: str) -> tuple[list[onnx.NodeProto], str]:
        """Clip to a grid of fewer bits, as QuantizeLinear clips to eight only; returns what is then to be rounded."""
        if grid.bits == _BYTE:
            return [], source
        scale, zero = np.float32(grid.scale[0]), grid.zero_point[0]
        ends = [
            self._add(f"{key}_{name}", np.array(scale * np.float32(end - zero), np.float32))
            for name, end in (("lowest", grid.lowest), ("highest", grid.highest))
        ]
        return [helper.make_node("Clip", [source, *ends], [f"{key}_clipped"], f"{key}_clip")], f"{key}_clipped"

    def _constant(self, key: str, value: _Array, grid: Grid, target: str) -> list[onnx.NodeProto]:
        integers, stored = f"{key}_quantized", to_integers(value, grid)
        if grid.block is not None:
            return self._blocks(key, stored, grid, target)
        axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
        back = helper.make_node(
            "DequantizeLinear", [integers, *self._parameters(key, grid)], [target], f"{key}_dequantize", **axis
        )
        if grid.bits >= _BYTE:
            self._add(integers, stored)
            return [back]
        inputs = [self._add(f"{key}_packed", pack_bits(stored, grid))]
        inputs += [self._add(*entry) for entry in unpack_constants(grid, stored.shape).items()]
        return [helper.make_node(UNPACK, inputs, [integers], f"{key}_unpack", domain=DOMAIN), back]

    def _blocks(self, key: str, stored: _Array, grid: Grid, target: str) -> list[onnx.NodeProto]:
        """Store a weight as a matrix out × K with blocks along K, and give it its shape afterwards."""
        integers = stored.reshape(len(stored), -1)
        scale = np.array(grid.scale, np.float32).reshape(len(stored), -1)
        inputs = [
            self._add(f"{key}_quantized", integers.astype(helper.tensor_dtype_to_np_dtype(_INTEGERS[grid.bits]))),
            self._add(f"{key}_scale", scale),
        ]
        flat = target if stored.ndim == 2 else f"{key}_flat"
        nodes = [
            helper.make_node("DequantizeLinear", inputs, [flat], f"{key}_dequantize", axis=1, block_size=grid.block)
        ]
        if flat != target:
            shape = self._add(f"{key}_shape", np.array(stored.shape, np.int64))
            nodes.append(helper.make_node("Reshape", [flat, shape], [target], f"{key}_reshape"))
        return nodes

    def _half(self, key: str, source: str, target: str) -> onnx.NodeProto:
        kind = _HALF[self.plan.formats[key]]
        largest = 65504.0 if kind == TensorProto.FLOAT16 else np.finfo(np.float32).max
        value = np.clip(array_of(self.values[source], self.held), -largest, largest)
        narrow = self._add(f"{key}_half", value.astype(helper.tensor_dtype_to_np_dtype(kind)))
        return helper.make_node("Cast", [narrow], [target], f"{key}_cast", to=TensorProto.FLOAT)

    def _parameters(self, key: str, grid: Grid) -> list[str]:
        scale = self._add(f"{key}_scale", _shaped(np.array(grid.scale, np.float32), grid))
        zero = _shaped(np.array(grid.zero_point, storage(grid)), grid)
        # Symmetric layers of one width share their zeros.
        name = f"{key}_zero_point" if zero.any() or grid.axis is None else f"zeros_{zero.dtype}_{len(zero)}"
        return [scale, self._add(name, zero)]

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
    """Let DQ → Pad → Q pad the integers with their zero point: ONNX Runtime would run such a Pad in float.

    That is the same only where both grids are, and where what is put in is zero, or a copy.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
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
        if not _same_grid(before, after[0], constants) or not _pads_with_zeros_or_copies(pad, constants):
            continue
        pad.input[:] = [before.input[0], pad.input[1], after[0].input[2], *pad.input[3:]]
        pad.output[:] = after[0].output
        dropped.append(after[0])
    for node in dropped:
        graph.node.remove(node)


def _same_grid(one: onnx.NodeProto, other: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    return all(
        np.array_equal(numpy_helper.to_array(constants[a]), numpy_helper.to_array(constants[b]))
        for a, b in zip(one.input[1:3], other.input[1:3], strict=True)
    )


def _pads_with_zeros_or_copies(pad: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    value = pad.input[2] if len(pad.input) > 2 else ""
    known = not value or (value in constants and not numpy_helper.to_array(constants[value]).any())
    return mode != b"constant" or known


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers nobody reads, and shapes of tensors that are gone."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not any(name in read for name in node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    keep_only(graph, read)
    made = {name for node in graph.node for name in node.output}
    types = [value for value in graph.value_info if value.name in made and not value.name.endswith("_quantized")]
    del graph.value_info[:]
    graph.value_info.extend(types)
