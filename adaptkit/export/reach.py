"""How far a part of an ONNX graph looks: where places of its output are made of places near them and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
from onnx import helper, numpy_helper

from adaptkit.export.cut import separators

_SPATIAL = 4
"""Dimensions of a feature map: sample, channel, row, column."""
_PLACE_BY_PLACE = frozenset(
    {
        *("Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Gelu", "Mish"),
        *("Tanh", "Softplus", "Softsign", "Erf", "Exp", "Sqrt", "Neg", "Abs", "Identity", "Cast", "Dropout"),
        *("BatchNormalization", "QuantizeLinear", "DequantizeLinear"),
    }
)
"""Work on one map; what else they take are numbers for all places, or for a channel."""
_BETWEEN = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "PRelu", "Concat"})
_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool"})
_FAR = 2**31 - 1
"""A slice that ends there goes to the end."""


@dataclass(frozen=True)
class Reach:
    """Output place p, along an axis, is made of input places p · stride − before … p · stride + after.

    Args:
        stride: Input places between two output places.
        before: Places.
        after: Places.

    Example:
        >>> Reach().then(2, 1, 1).then(1, 1, 1)  # a 3 × 3 convolution of stride 2, and one of stride 1 behind it
        Reach(stride=2, before=3, after=3)
    """

    stride: int = 1
    before: int = 0
    after: int = 0

    def then(self, stride: int, before: int, after: int) -> Reach:
        """Put a window behind it, which looks that far at what this gives."""
        return Reach(self.stride * stride, self.before + self.stride * before, self.after + self.stride * after)

    def wider(self, other: Reach) -> Reach:
        """Cover what both cover, of the same stride."""
        return Reach(self.stride, max(self.before, other.before), max(self.after, other.after))


Axes: TypeAlias = tuple[Reach, Reach]
"""Along rows and along columns."""


def reaches(graph: onnx.GraphProto, source: str) -> dict[str, Reach]:
    """Find every value that is made place by place, or window by window, of one feature map.

    Args:
        graph: With the shapes of its values.
        source: A value N × C × H × W.

    Returns:
        How far each looks along either axis; a value is missing where anything else goes into it, an operator that
        mixes all places, or different strides along the axes.

    Example:
        >>> nodes = [helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        ...          helper.make_node("Relu", ["a"], ["b"]), helper.make_node("GlobalAveragePool", ["b"], ["c"])]
        >>> x, a, c = (helper.make_tensor_value_info(*v) for v in (("x", 1, [1, 3, 8, 8]), ("a", 1, [1, 3, 4, 4]),
        ...                                                        ("c", 1, [1, 3, 1, 1])))
        >>> reaches(helper.make_graph(nodes, "g", [x], [c], value_info=[a]), "x")["b"]
        Reach(stride=2, before=0, after=1)
    """
    shapes = shapes_of(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Axes] = {source: (Reach(), Reach())}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not inputs or not all(name in found or name in constants for name in inputs):
            continue
        maps = [name for name in inputs if name in found]
        axes = _axes_of(node, maps, found, shapes, constants) if maps else None
        if axes is not None:
            found[node.output[0]] = axes
    return {name: rows.wider(columns) for name, (rows, columns) in found.items() if rows.stride == columns.stride}


def map_cuts(proto: onnx.ModelProto) -> list[str]:
    """List the feature maps a network can be cut at, before anything mixes all of their places, in order.

    A cut is behind activations and quantizations, where there are some: so little crosses, and what crosses is what
    the next layer reads.

    Args:
        proto: With the shapes of its values, but for the batch; its first input are images.
    """
    graph = proto.graph
    source = graph.input[0].name
    shapes, local = shapes_of(graph), reaches(graph, source)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node.op_type for node in graph.node for name in node.output}
    return [
        name
        for name in separators(graph, graph.output[0].name)
        if name in local
        and makers[name] != "DequantizeLinear"
        and _covers(shapes.get(name), shapes[source], local[name])
        and not all(node.op_type in _PLACE_BY_PLACE - {"DequantizeLinear"} for node in readers[name])
    ]


def free_size(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that takes feature maps of any height and width, in any number."""
    copy: onnx.ModelProto = onnx.ModelProto.FromString(proto.SerializeToString())
    del copy.graph.value_info[:]
    for values in (copy.graph.input, copy.graph.output):
        for value in values:
            kind = value.type.tensor_type
            names = [f"{value.name}/{axis}" for axis in ("tiles", "height", "width")]
            sizes = [names[0], kind.shape.dim[1].dim_value, *names[1:]]
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind.elem_type, sizes))
    return copy


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Give the shapes that are known; 0 stands for a size that is free."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output, *graph.value_info)
    }


def _covers(shape: Sequence[int] | None, source: Sequence[int], reach: Reach) -> bool:
    """Say whether every stride of the input has its place in a map, so that a crop's places are the map's."""
    return shape is not None and len(shape) == _SPATIAL and [n * reach.stride for n in shape[2:]] == list(source[2:])


def _axes_of(
    node: onnx.NodeProto,
    maps: Sequence[str],
    found: Mapping[str, Axes],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, onnx.TensorProto],
) -> Axes | None:
    """Say how far what a node makes looks; None where it is not made of places near it."""
    first, shape = found[maps[0]], shapes.get(maps[0], ())
    if len(shape) != _SPATIAL:
        return None
    if node.op_type in _BETWEEN:
        same = all(
            [axis.stride for axis in found[name]] == [axis.stride for axis in first]
            and shapes.get(name, ())[2:] == shape[2:]
            for name in maps
        )
        flat = all(set(constants[name].dims[-2:]) <= {1} for name in node.input if name in constants)
        along = node.op_type != "Concat" or _attributes(node)["axis"] == 1
        return _widest([found[name] for name in maps]) if same and flat and along else None
    if maps != [node.input[0]]:
        return None
    others = [constants.get(name) for name in node.input[1:]]
    if node.op_type in _WINDOWS:
        return _behind_window(first, _attributes(node), others[0] if others else None)
    if node.op_type == "Slice":
        return _behind_slice(first, [_integers(tensor) for tensor in others])
    if node.op_type == "Pad":
        return first if _pads_channels(others) else None
    return first if node.op_type in _PLACE_BY_PLACE else None


def _widest(axes: Sequence[Axes]) -> Axes:
    rows, columns = axes[0]
    for other_rows, other_columns in axes[1:]:
        rows, columns = rows.wider(other_rows), columns.wider(other_columns)
    return rows, columns


def _behind_window(axes: Axes, attributes: dict[str, Any], weight: onnx.TensorProto | None) -> Axes | None:
    """Add a convolution or a pooling."""
    kernel = attributes.get("kernel_shape") or (list(weight.dims[2:]) if weight is not None else [])
    if len(kernel) != len(axes) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    if attributes.get("ceil_mode"):
        return None
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0, 0, 0, 0])
    rows, columns = (
        axis.then(strides[i], pads[i], (kernel[i] - 1) * dilations[i] - pads[i]) for i, axis in enumerate(axes)
    )
    return rows, columns


def _behind_slice(axes: Axes, read: Sequence[list[int]]) -> Axes | None:
    """Add a slice that takes every n-th place of rows or columns, from the first one to the end."""
    starts, ends, along, steps = (*read, [1] * len(read[0]))[:4] if len(read) > 2 else ([1], [0], [0], [1])
    strides = {axis % _SPATIAL: step for axis, step in zip(along, steps, strict=True)}
    if any(starts) or any(end < _FAR for end in ends) or not set(strides) <= {2, 3} or min(steps) < 1:
        return None
    rows, columns = (axis.then(strides.get(i, 1), 0, 0) for i, axis in enumerate(axes, 2))
    return rows, columns


def _pads_channels(read: Sequence[onnx.TensorProto | None]) -> bool:
    """Say whether a padding leaves rows and columns as they are."""
    pads = _integers(read[0])
    return len(read) <= 2 and len(pads) == 2 * _SPATIAL and not any(pads[2:4] + pads[6:])


def _integers(tensor: onnx.TensorProto | None) -> list[int]:
    values: list[int] = [] if tensor is None else numpy_helper.to_array(tensor).reshape(-1).tolist()
    return values


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
