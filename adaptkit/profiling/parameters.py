"""How many parameters a model has."""

import math

import onnx
from torch import nn

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
    return sum(math.prod(tensor.dims) for tensor in parameter_tensors(graph))


def parameter_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """List the constants of a graph that are no shapes, scales or zero points."""
    grids = {
        name
        for node in graph.node
        if node.op_type.endswith("quantizeLinear") or node.op_type == "QuantizeLinear"
        for name in node.input[_GRID_INPUTS]
    }
    shapes = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    return [
        tensor
        for tensor in graph.initializer
        if tensor.dims and tensor.data_type not in shapes and tensor.name not in grids
    ]
