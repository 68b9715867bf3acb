"""What ONNX Runtime makes of a quantized file."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper

from adaptkit.quantization.weights import LIMIT, is_depthwise, rows_in_runtime_order, worst_pair

_INTEGER = ("QLinear", "QGemm", "Nhwc", "MatMulInteger", "ConvInteger", "DynamicQuantize")
_LAYERS = ("Conv", "Gemm", "MatMul")


def optimized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as ONNX Runtime's CPU provider runs it (extended optimizations, none that depend on the CPU)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def float_islands(proto: onnx.ModelProto) -> list[str]:
    """List the float operations left between integer ones, as `type name`, in the graph as ONNX Runtime runs it.

    An operation counts when it computes on values that came out of integers and whose result goes back into integers.

    Args:
        proto: A quantized model, as exported (not yet optimized).
    """
    graph = optimized(proto).graph
    constants = {tensor.name for tensor in graph.initializer}
    from_integers: set[str] = set()
    for node in graph.node:
        computed = [name for name in node.input if name not in constants]
        if _is_integer(node) and node.op_type != "DequantizeLinear":
            continue
        if (node.op_type == "DequantizeLinear" and computed) or any(name in from_integers for name in computed):
            from_integers.update(node.output)
    islands: list[str] = []
    to_integers: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type == "QuantizeLinear":
            to_integers.add(node.input[0])
        elif not _is_integer(node) and any(name in to_integers for name in node.output):
            to_integers.update(node.input)
            if any(name in from_integers for name in node.input):
                islands.append(f"{node.op_type} {node.name}")
    return islands[::-1]


def island_notes(proto: onnx.ModelProto) -> list[str]:
    """Say in a sentence which float operations are left between integer ones, for a report."""
    kinds = Counter(island.partition(" ")[0] for island in float_islands(proto))
    if not kinds:
        return ["no float operation is left between integer ones in the graph as ONNX Runtime runs it"]
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return [f"float operations left between integer ones in the graph as ONNX Runtime runs it: {listed}"]


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type.startswith(_INTEGER)


def saturation_risk(proto: onnx.ModelProto) -> list[str]:
    """List the layers whose integer products can saturate on a CPU with AVX2 or AVX-512 but without VNNI.

    Such a CPU adds two products of an activation (0 … 255) and a weight in 16 bits; a layer is listed when some pair of
    its weights can pass 32767 there. Its results are then wrong on that CPU and right on others.

    Args:
        proto: A quantized model in QDQ form.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for node in proto.graph.node:
        if node.op_type not in _LAYERS:
            continue
        maker = makers.get(node.input[1])
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in constants:
            continue
        weight = numpy_helper.to_array(constants[maker.input[0]])
        worst = _worst(node, weight) if weight.dtype == np.int8 else 0
        if worst > LIMIT:
            found.append(f"{node.name}: two 8-bit products can reach {worst} > {LIMIT}")
    return found


def _worst(node: onnx.NodeProto, weight: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> int:
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not flags.get("transB")):
        weight = weight.T
    if node.op_type == "Conv" and is_depthwise(weight.shape, flags.get("group", 1)):
        return 0
    rows = rows_in_runtime_order(torch.from_numpy(weight.astype(np.int64)))
    return int(worst_pair(rows).max())
