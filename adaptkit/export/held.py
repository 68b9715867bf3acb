"""Large constants kept beside a graph while it is made: gigabytes are not copied on their way to a file."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

Array: TypeAlias = np.ndarray[Any, Any]
Held: TypeAlias = dict[str, Array]
"""Constants by name; where PyTorch's memory can be looked at as an array, no copies of it."""

_LARGE = 1 << 16
"""Bytes from which a constant is held back: smaller ones are read by the exporter's and our own rewriting of graphs."""
_PLACE = "held"


def hold_back(model: onnx_ir.Model) -> Held:
    """Take the large constants out of a graph; what is written of it then names them, without their values.

    Args:
        model: Changed in place.
    """
    held: Held = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _LARGE:
            held[name] = tensor.numpy()
            value.const_value = onnx_ir.ExternalTensor(
                _PLACE, None, None, tensor.dtype, shape=onnx_ir.Shape(tensor.shape.numpy()), name=name
            )
    return held


def array_of(tensor: onnx.TensorProto, held: Held) -> Array:
    """Give the values of a constant, held back or not."""
    return held[tensor.name] if tensor.name in held else numpy_helper.to_array(tensor)


def fill_in(proto: onnx.ModelProto, held: Held) -> onnx.ModelProto:
    """Put the constants that were held back into their places.

    Args:
        proto: Changed in place.
        held: From `hold_back`.
    """
    for tensor in proto.graph.initializer:
        if tensor.name in held:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = numpy_helper.from_array(held[tensor.name]).raw_data
    return proto


def check_graph(proto: onnx.ModelProto) -> None:
    """Check that a model is valid ONNX; large constants count by type and shape only, and are not copied.

    Args:
        proto: The model, with or without the constants that were held back.

    Raises:
        ValidationError: It is not.
    """
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = proto.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(proto.graph, field))
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.raw_data) >= _LARGE:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    for sparse in proto.graph.sparse_initializer:
        kind = sparse.values.data_type
        graph.input.append(helper.make_tensor_value_info(sparse.values.name, kind, sparse.dims))
    onnx.checker.check_model(light)


def keep_only(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove the other constants of a graph, one by one: to write the list anew would copy those that stay."""
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in names:
            del graph.initializer[index]
