"""Peak bytes of activations: which values of a graph have to be there at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from adaptkit.export.files import read_model
from adaptkit.profiling.shapes import run_values

_VIEWS = {"DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
"""They put out what they take in, under another shape or as another type of which kernels make no use."""
_ELEMENTWISE = """
    Abs Add BatchNormalization Cast Ceil Clip Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Mish Mul
    Neg PRelu Pow QuantizeLinear Reciprocal Relu Selu Sigmoid Softplus Sqrt Sub Tanh ThresholdedRelu
"""
_IN_PLACE = _VIEWS | set(_ELEMENTWISE.split())
"""They read every entry once, before they write it: the result can take the place of an input that ends there."""


def file_peak_activation_bytes(path: Path, batch_size: int = 1) -> int:
    """Give the peak activation bytes of an ONNX file.

    Args:
        path: The file; its weights are looked at, and not copied.
        batch_size: Samples in a call.

    Raises:
        ModelError: The file cannot be read or run.
    """
    return activation_bytes(read_model(path, weights_beside=False), batch_size, path.parent)


def activation_bytes(proto: onnx.ModelProto, batch_size: int = 1, weights_in: Path | None = None) -> int:
    """Give the peak activation bytes of a model that was read already.

    Args:
        proto: The model.
        batch_size: Samples in a call.
        weights_in: The folder of weights that are not in the model itself.
    """
    values = run_values(proto, batch_size=batch_size, weights_in=weights_in)
    return peak_activation_bytes(proto.graph, {name: value.bytes for name, value in values.items()})


def peak_activation_bytes(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> int:
    """Give the most bytes of activations that are needed at once, node by node in the order of the graph.

    peak = max over nodes t of Σ bytes(b) over buffers b that are alive at t. A buffer is alive from the node that makes
    it to the last one that reads it; inputs and outputs of the graph belong to the caller and are alive from their
    start to the end. Elementwise operations write over an input of the same size that ends with them, reshapes take no
    bytes of their own. Values between a kernel and the quantizers around it are never there in float: kernels read and
    write 8 bits. What depends on constants alone does not count, nor what a kernel needs for itself. A runtime that
    fuses nodes may need less, one that blocks channels or keeps an arena more.

    Args:
        graph: Nodes in an order in which they can run; branches of an If count as reading what they name.
        sizes: Bytes of every value that is no constant; a value that is not in it counts nothing.

    Example:
        >>> nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"]), onnx.helper.make_node("Relu", ["a"], ["b"])]
        >>> nodes.append(onnx.helper.make_node("Conv", ["b", "w"], ["y"]))
        >>> x, y = onnx.ValueInfoProto(name="x"), onnx.ValueInfoProto(name="y")
        >>> peak_activation_bytes(onnx.helper.make_graph(nodes, "g", [x], [y]), {"x": 8, "a": 32, "b": 32, "y": 4})
        44
    """
    starts, eight_bit = _starts(graph), _never_float(graph)
    sizes = {name: sizes[eight_bit.get(name, name)] for name in starts if eight_bit.get(name, name) in sizes}
    last = {name: place for place, node in enumerate(graph.node) for name in _read_by(node)}
    last |= dict.fromkeys((value.name for value in (*graph.input, *graph.output)), len(graph.node))
    buffer = {name: name for name in starts}
    for place, node in enumerate(graph.node):
        taken = _overwritten(node, place, sizes, last, buffer)
        if taken is not None:
            buffer[node.output[0]] = taken
            last[taken] = max(last.get(taken, place), last.get(node.output[0], place))
    changes = [0] * (len(graph.node) + 2)
    for name in {buffer[name] for name in sizes}:
        changes[starts[name]] += sizes.get(name, 0)
        changes[last.get(name, starts[name]) + 1] -= sizes.get(name, 0)
    return max(itertools.accumulate(changes))


def _starts(graph: onnx.GraphProto) -> dict[str, int]:
    """Give the place of the node that makes each value, of those that depend on an input."""
    constants = {tensor.name for tensor in graph.initializer}
    starts = {value.name: 0 for value in graph.input if value.name not in constants}
    for place, node in enumerate(graph.node):
        if any(name in starts for name in _read_by(node)):
            starts |= dict.fromkeys(filter(None, node.output), place)
    return starts


def _never_float(graph: onnx.GraphProto) -> dict[str, str]:
    """Map what a DequantizeLinear makes, or one QuantizeLinear alone reads, to the value that kernels have instead."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in _read_by(node):
            readers.setdefault(name, []).append(node)
    found = {
        name: nodes[0].output[0]
        for name, nodes in readers.items()
        if [node.op_type for node in nodes] == ["QuantizeLinear"]
    }
    found |= {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for value in (*graph.input, *graph.output):
        found.pop(value.name, None)
    return found


def _overwritten(
    node: onnx.NodeProto, place: int, sizes: Mapping[str, int], last: Mapping[str, int], buffer: Mapping[str, str]
) -> str | None:
    """Give the buffer that the first output of a node takes over, None where it needs one of its own."""
    if node.op_type not in _IN_PLACE or not node.output or node.output[0] not in sizes:
        return None
    view = node.op_type in _VIEWS
    for name in node.input[: 1 if view else None]:
        old = buffer.get(name, "")
        if sizes.get(old) == sizes[node.output[0]] and (view or last.get(old, place) <= place):
            return old
    return None


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)
            yield from (value.name for value in graph.output)
