"""An exported model with several outputs, cut into stages that run one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import helper

from adaptkit.errors import ModelError
from adaptkit.export.names import producers

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def separators(graph: onnx.GraphProto, output: str) -> list[str]:
    """List the values that everything on the way to an output goes through, in order.

    Args:
        graph: Nodes in topological order, as ONNX has them.
        output: Nodes that lead only to other outputs are left out.

    Example:
        >>> nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["b"]),
        ...          helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Abs", ["c"], ["d"])]
        >>> x, d = (helper.make_tensor_value_info(name, 1, [1]) for name in "xd")
        >>> separators(helper.make_graph(nodes, "g", [x], [d]), "d")
        ['a', 'c']
    """
    nodes = _nodes_between(graph, (), (output,))
    moving = _moving(graph, nodes)
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input if name in moving}
    live = {value.name for value in graph.input if value.name in last_use}
    found: list[str] = []
    for index, node in enumerate(nodes):
        live = {name for name in (*live, *node.output) if last_use.get(name, -1) > index}
        if len(live) == 1 and live <= set(node.output):
            found += live
    return found


def exit_boundaries(graph: onnx.GraphProto, final: str, exits: Sequence[str]) -> list[str]:
    """Find where to cut after each exit, so that nothing of the exit is computed later.

    Where only the 8-bit integers of a boundary are read later, they cross: a quarter of the bytes.

    Args:
        graph: Of a model that computes the exits on its way to the last output.
        final: That output.
        exits: The other outputs, in order.

    Returns:
        One value for each exit.

    Raises:
        ModelError: An exit does not branch off at a single value, or not after the exit before it.
    """
    order = {name: place for place, name in enumerate(separators(graph, final))}
    integers = _integers(graph)
    boundaries: list[str] = []
    for name in exits:
        touched = _first_of(graph, name, set(order))
        places = [order[value] for value in touched if value in order]
        if len(places) < len(touched) or not places:
            raise ModelError(f"the model cannot be cut at exit {name}: it needs more than one value on the way")
        value = list(order)[max(places)]
        value = next((other for other in integers.get(value, ()) if other in order), value)
        if boundaries and order[value] <= order[boundaries[-1]]:
            raise ModelError(f"exit {name} does not come after the exit before it")
        boundaries.append(value)
    return boundaries


def _integers(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Map float values to the integers they were made from, or are turned into."""
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            value, integers = (node.input[0], node.output[0])[:: 1 if node.op_type == _QUANTIZE else -1]
            found.setdefault(value, []).append(integers)
    return found


def split(proto: onnx.ModelProto, boundaries: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[onnx.ModelProto]:
    """Cut a graph into stages: each takes what crosses the boundary before it, and gives what crosses the next one.

    Args:
        proto: The whole graph, of at most 2 GB; not changed.
        boundaries: Values to cut at, in order: one fewer than there are stages.
        outputs: The graph's outputs that each stage gives besides.

    Raises:
        ModelError: A boundary is not there, or a stage needs more than what crosses the boundary before it.
    """
    graph = onnx.shape_inference.infer_shapes(proto).graph
    starts = [tuple(value.name for value in graph.input), *((name,) for name in boundaries)]
    ends = [*((name,) for name in boundaries), ()]
    return [_stage(proto, graph, start, (*end, *own)) for start, end, own in zip(starts, ends, outputs, strict=True)]


def _stage(
    proto: onnx.ModelProto, graph: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    nodes = _nodes_between(graph, inputs, outputs)
    made = {name for node in nodes for name in node.output} | set(inputs)
    read = {name for node in nodes for name in node.input if name}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    if missing := sorted(read - made - constants):
        raise ModelError(f"the model cannot be cut at {', '.join(inputs)}: what follows needs {', '.join(missing)} too")
    if missing := sorted(set(outputs) - made):
        raise ModelError(f"the model cannot be cut: it has no value called {', '.join(missing)}")
    infos = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    stage = helper.make_graph(
        nodes,
        graph.name,
        [infos[name] for name in inputs],
        [infos[name] for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in read],
        value_info=[infos[name] for name in sorted(made & infos.keys()) if name not in {*inputs, *outputs}],
        sparse_initializer=[tensor for tensor in graph.sparse_initializer if tensor.values.name in read],
    )
    model = helper.make_model(
        stage, opset_imports=proto.opset_import, ir_version=proto.ir_version, functions=proto.functions
    )
    model.producer_name = proto.producer_name
    return model


def _nodes_between(graph: onnx.GraphProto, start: Sequence[str], end: Sequence[str]) -> list[onnx.NodeProto]:
    """List the nodes that `end` needs and that come after `start`, in order."""
    needed = {node.output[0] for node in _walk_back(graph, end, set(start))}
    return [node for node in graph.node if node.output[0] in needed]


def _walk_back(graph: onnx.GraphProto, end: Sequence[str], stop: set[str]) -> Iterator[onnx.NodeProto]:
    makes, seen = producers(graph), set(stop)
    todo = list(end)
    while todo:
        name = todo.pop()
        if name in seen or name not in makes:
            continue
        node = makes[name]
        seen |= set(node.output)
        todo += node.input
        yield node


def _first_of(graph: onnx.GraphProto, end: str, stop: set[str]) -> set[str]:
    """Name what a walk back from `end` meets first: values of `stop`, or inputs of the graph."""
    constants = _constants(graph)
    nodes = list(_walk_back(graph, (end,), stop))
    made = {name for node in nodes for name in node.output}
    return {name for node in nodes for name in node.input if name and name not in made | constants}


def _constants(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def _moving(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Name the values that depend on the inputs; all others are constants of the file."""
    moving = {value.name for value in graph.input}
    for node in nodes:
        if moving & set(node.input):
            moving |= set(node.output)
    return moving
