"""One ONNX file layer by layer: size, MACs, bytes, measured time, how near to the roofs of the machine, and why not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from adaptkit.export.names import producers
from adaptkit.export.outside import tensor_bytes
from adaptkit.profiling.graph import GraphCost, NodeCost, graph_cost
from adaptkit.profiling.inputs import random_feeds
from adaptkit.profiling.kernels import Kernel, KernelRun, run_kernels
from adaptkit.profiling.layer_times import layer_names, multiplies, node_name, row_of
from adaptkit.profiling.parameters import constant_sizes, parameter_tensors
from adaptkit.profiling.slow import Facts, roof, slow_reason
from adaptkit.report.schema import LayerFigures, Machine, Network

_BLOCKED = "_nchwc"
_PREPARE = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""What may lie between a constant and the node that computes with it."""


@dataclass
class _Row:
    """What counts to one layer."""

    kernels: list[Kernel] = field(default_factory=list)
    costs: list[NodeCost] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    parameters: int = 0


def profile_network(
    proto: onnx.ModelProto,
    machine: Machine,
    *,
    name: str,
    weights_in: Path | None = None,
    batch_size: int = 1,
    repeats: int = 30,
) -> Network:
    """Measure a model layer by layer with ONNX Runtime's own profiler, and hold each layer against the roofs.

    A layer is a module of the PyTorch model where nodes are named after modules, else a node. Kernels that ONNX Runtime
    puts in by itself, such as changes of layout, are rows of their own, so that shares add up to one.

    Args:
        proto: The model; nodes without a name, or with one that another has, get one.
        machine: Measured with the number of threads to use.
        name: Of the file.
        weights_in: The folder of weights that are not in the model itself.
        batch_size: Samples in a call.
        repeats: Profiled calls.

    Raises:
        ModelError: An input dimension besides the first is free, or ONNX Runtime cannot run the model.
    """
    _name_all(proto.graph)
    run = run_kernels(
        proto.SerializeToString(),
        lambda session: random_feeds(session, batch_size, 0, name),
        threads=machine.threads,
        repeats=repeats,
        weights_in=weights_in,
    )
    cost = graph_cost(proto, weights_in)
    samples = 1 if _fixes_batch(proto.graph) else batch_size
    rows = _rows(proto.graph, run, cost)
    return Network(
        file=name,
        batch_size=batch_size,
        call_us=run.call_us,
        kernels_us=run.all_microseconds,
        layers=[_figures(key, row, run, machine, _facts(row, run, cost, samples)) for key, row in rows.items()],
        uncounted_ops=list(cost.uncounted),
    )


def _rows(graph: onnx.GraphProto, run: KernelRun, cost: GraphCost) -> dict[str, _Row]:
    rows: dict[str, _Row] = defaultdict(_Row)
    owners, places = layer_names(graph), _places(graph)
    for kernel in run.kernels:
        found = (owners if multiplies(kernel.op) else places).get(node_name(kernel.name))
        rows[found or places.get(kernel.name) or f"({kernel.op}, made by ONNX Runtime)"].kernels.append(kernel)
    for node in cost.nodes:
        rows[node.layer].costs.append(node)
    readers, sizes = _readers(graph), constant_sizes(graph)
    for tensor in parameter_tensors(graph):
        reader = _reader(tensor.name, readers)
        own = "" if reader is None else row_of(reader)
        # A bias that was fused has no kernel of its own: it counts to the product before it.
        row = rows[own if own in rows or reader is None else owners.get(reader.name, own)]
        row.weights.append(tensor)
        row.parameters += sizes[tensor.name]
    return {key or "(constants that nothing reads)": row for key, row in rows.items()}


def _facts(row: _Row, run: KernelRun, cost: GraphCost, samples: int) -> Facts:
    weights = sum(tensor_bytes(tensor) for tensor in row.weights)
    main = max(row.costs, key=lambda cost: cost.macs, default=None)
    return Facts(
        ops=tuple(dict.fromkeys(kernel.op for kernel in sorted(row.kernels, key=run.microseconds, reverse=True))),
        macs=sum(cost.macs for cost in row.costs) * samples,
        bytes=weights + sum(kernel.bytes * len(kernel.durations) for kernel in row.kernels) // run.calls,
        time_us=sum(run.microseconds(kernel) for kernel in row.kernels) if row.kernels else None,
        weight_bytes=weights,
        all_weight_bytes=cost.weight_bytes,
        kernels=len(row.kernels),
        integer=main is not None and main.integer,
        depthwise=main is not None and main.depthwise,
        channels=() if main is None else main.channels,
        blocked=any(kernel.name.endswith(_BLOCKED) for kernel in row.kernels if kernel.op == "Conv"),
        among_integers=any(node.integer for node in cost.nodes),
    )


def _figures(name: str, row: _Row, run: KernelRun, machine: Machine, facts: Facts) -> LayerFigures:
    time = facts.time_us
    found = LayerFigures(
        name=name,
        kind=", ".join(facts.ops) or "fused into others",
        parameters=row.parameters,
        macs=sum(cost.macs for cost in row.costs),
        bytes=facts.bytes,
        time_us=time,
        share=time / run.all_microseconds if time is not None and run.all_microseconds else None,
    )
    if not time:
        return found
    lowest = roof(facts, machine)
    return found.model_copy(
        update={
            "gflops": 2 * facts.macs / 1000 / time,
            "intensity": 2 * facts.macs / facts.bytes if facts.bytes else None,
            "bound": lowest.bound,
            "of_roof": lowest.time_us / time,
            "reason": slow_reason(facts, machine),
        }
    )


def _places(graph: onnx.GraphProto) -> dict[str, str]:
    """Map the names of all nodes and values to the layer they count to."""
    return {name: row_of(node) for node in graph.node for name in (node.name, *node.output)}


def _readers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Map every value to the first node that reads it."""
    readers: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, node)
    return readers


def _reader(value: str, readers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Find the node that computes with a constant, past what only prepares it."""
    node = readers.get(value)
    while node is not None and node.op_type in _PREPARE and node.output[0] in readers:
        node = readers[node.output[0]]
    return node


def _fixes_batch(graph: onnx.GraphProto) -> bool:
    constants = {tensor.name for tensor in graph.initializer}
    first = next((value for value in graph.input if value.name not in constants), None)
    sizes = [] if first is None else list(first.type.tensor_type.shape.dim)
    return bool(sizes) and sizes[0].HasField("dim_value")


def _name_all(graph: onnx.GraphProto) -> None:
    """Give every node a name that no other has: profiles go by it."""
    taken = set(producers(graph))
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)
