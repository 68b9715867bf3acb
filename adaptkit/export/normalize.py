"""Input normalization as part of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from adaptkit.errors import ModelError

_MEAN, _STD, _CENTRED, _SCALED = "adaptkit_mean", "adaptkit_std", "adaptkit_centred", "adaptkit_normalized"


def add_normalization(proto: onnx.ModelProto, mean: Sequence[float], std: Sequence[float]) -> None:
    """Put (x - mean) / std before everything that reads the first input, so that the file takes pixels in [0, 1].

    Works on quantized graphs too: the quantization of the input then acts on the normalized values, as before.

    Args:
        proto: Changed in place; its first input is N × C × ….
        mean: Per channel, C values.
        std: Per channel, C values.

    Raises:
        ModelError: The number of channels is another.
    """
    graph = proto.graph
    source = graph.input[0]
    dims = source.type.tensor_type.shape.dim
    if len(dims) < 2 or dims[1].dim_value != len(mean) or len(mean) != len(std):
        got = [dim.dim_value or dim.dim_param for dim in dims]
        raise ModelError(
            f"normalization has {len(mean)} channels, but the model takes {got}: give one mean and std per channel"
        )
    for node in graph.node:
        node.input[:] = [_SCALED if name == source.name else name for name in node.input]
    shape = (1, len(mean), *[1] * (len(dims) - 2))
    for name, values in ((_MEAN, mean), (_STD, std)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32).reshape(shape), name))
    nodes = [
        helper.make_node("Sub", [source.name, _MEAN], [_CENTRED], name="adaptkit.normalize/Sub"),
        helper.make_node("Div", [_CENTRED, _STD], [_SCALED], name="adaptkit.normalize/Div"),
    ]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
