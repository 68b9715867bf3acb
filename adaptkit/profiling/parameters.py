"""How many parameters a model has."""

import math

import onnx
from onnx import numpy_helper
from torch import nn

from adaptkit.quantization.packing import UNPACK

_GRID_INPUTS = slice(1, 3)
"""Where Q and DQ nodes take scale and zero point."""


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model, each once however often it is used; buffers do not count.

    Example:
        >>> count_parameters(nn.Linear(4, 2))
        10
    """
    return sum(parameter.numel() for parameter in model.parameters())


def graph_constants(graph: onnx.GraphProto) -> int:
    """Count the values of the constants of a graph that are no shapes, scales or zero points."""
    return sum(constant_sizes(graph).values())


def constant_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Give the number of values of each of `parameter_tensors`; of those in planes of bits, what comes out of them."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    unpacked = {
        node.input[0]: math.prod(numpy_helper.to_array(known[node.input[-1]]).tolist())
        for node in graph.node
        if node.op_type == UNPACK and node.input[-1] in known
    }
    return {tensor.name: unpacked.get(tensor.name, math.prod(tensor.dims)) for tensor in parameter_tensors(graph)}


def parameter_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """List the constants of a graph that are no shapes, scales or zero points."""
    grids = {
        name
        for node in graph.node
        if node.op_type.endswith("quantizeLinear") or node.op_type == "QuantizeLinear"
        for name in node.input[_GRID_INPUTS]
    }
    grids |= {name for node in graph.node if node.op_type == UNPACK for name in node.input[1:]}
    shapes = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    return [
        tensor
        for tensor in graph.initializer
        if tensor.dims and tensor.data_type not in shapes and tensor.name not in grids
    ]
