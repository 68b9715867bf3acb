"""All figures of a conditional model together, on real samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import onnx
from onnx import helper

from adaptkit.export.files import file_bytes, read_model
from adaptkit.export.metadata import EXITS
from adaptkit.loading.batches import Batches
from adaptkit.metrics.file import PathAccuracy, Score
from adaptkit.profiling.activations import activation_bytes
from adaptkit.profiling.energy import Energy, energy_of_calls, estimate
from adaptkit.profiling.graph import GraphCost, graph_cost
from adaptkit.profiling.memory import peak_memory
from adaptkit.profiling.parameters import graph_constants
from adaptkit.profiling.sample_latency import SampleComparison, SampleTiming, compare_on_samples, ratios_of_means
from adaptkit.report.schema import Figures, PathFigures, Paths
from adaptkit.runtime.folder import read_manifest
from adaptkit.runtime.manifest import MANIFEST
from adaptkit.runtime.model import AdaptedModel
from adaptkit.specs import ProfileSpec

Parts = Sequence[tuple[onnx.ModelProto, float]]
"""Networks, and the share of the samples that each one runs for."""


def is_conditional(path: Path) -> bool:
    """Say whether samples take different ways through what a path holds, an ONNX file or a folder."""
    if path.is_dir() and (path / MANIFEST).is_file():
        return True
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        return False
    return any(entry.key == EXITS for entry in read_model(file, weights_beside=False).metadata_props)


def onnx_files(path: Path) -> list[Path]:
    """List the ONNX files that a model is made of.

    Args:
        path: An ONNX file, or a folder that `AdaptedModel.load` opens.
    """
    if not path.is_dir():
        return [path]
    if not (path / MANIFEST).is_file():
        return [path / "model.onnx"]
    names = [file.name for file in read_manifest(path).files]
    return [path / name for name in names if name.endswith(".onnx")]


def model_bytes(path: Path) -> int:
    """Count the bytes of all files that a model is made of."""
    if path.is_dir() and (path / MANIFEST).is_file():
        names = [MANIFEST, *(file.name for file in read_manifest(path).files)]
        return sum((path / name).stat().st_size for name in names)
    return sum(file_bytes(file) for file in onnx_files(path))


def all_parts(path: Path) -> Parts:
    """Take every network of a model as one that always runs: the longest way, where shares are not known."""
    return [(unfolded(read_model(file)), 1.0) for file in onnx_files(path)]


def artifact_figures(
    path: Path, parts: Parts, compared: Sequence[Path], batches: Batches, profile: ProfileSpec, seen: Score
) -> tuple[Figures, list[SampleComparison]]:
    """Measure a conditional model beside others, on the same real samples.

    Args:
        path: Its folder, or its one file.
        parts: The networks it is made of, for MACs and estimates.
        compared: The baseline, and the model that was wrapped where that is another one.
        batches: Normalized samples.
        profile: What to measure.
        seen: How well it does its task, and which ways samples took.

    Returns:
        The figures, and what was measured of every file of `compared`.
    """
    *others, own = compare_on_samples([*compared, path], batches, profile)
    costs = [(graph_cost(network), share) for network, share in parts]
    energy = _energy(path, costs, batches, profile)
    first, *files = onnx_files(path)
    figures = Figures(
        parameters=sum(graph_constants(network.graph) for network, _ in parts),
        macs=round(sum(share * cost.macs for cost, share in costs)),
        bytes=model_bytes(path),
        latency_ms=own.latency_ms,
        speedup=ratios_of_means(others[0], own) if others else {},
        peak_activation_bytes=max(activation_bytes(network, profile.batch_sizes[0]) for network, _ in parts),
        peak_memory_bytes=peak_memory(first, profile.batch_sizes[0], files),
        energy_mj=energy.millijoules,
        energy_method=energy.method,
        paths=_paths(own, others, seen, sum(share * cost.weight_bytes for cost, share in costs)),
    )
    return figures, others


def _paths(own: SampleComparison, others: Sequence[SampleComparison], seen: Score, weight_bytes: float) -> Paths | None:
    """Where a model gives numbers there is one way only."""
    return paths_of(own, others, seen, weight_bytes) if isinstance(seen, PathAccuracy) else None


def paths_of(
    own: SampleComparison, others: Sequence[SampleComparison], seen: PathAccuracy, weight_bytes: float | None
) -> Paths:
    """Put together what was measured of the ways, at the first setting."""
    timing = next(iter(own.timings.values()))
    ways = [_way(name, number, seen, timing) for number, name in enumerate(seen.names)]
    timed = {way.name: way.latency_ms.p99 for way in ways if way.latency_ms is not None}
    inner = others[-1] if others else None
    return Paths(
        samples=seen.samples,
        ways=ways,
        slowest=max(timed, key=lambda name: timed[name], default=None),
        weight_bytes=weight_bytes,
        inner_latency_ms=inner.latency_ms if inner else {},
        inner_speedup=ratios_of_means(inner, own) if inner else {},
    )


def _way(name: str, number: int, seen: PathAccuracy, timing: SampleTiming) -> PathFigures:
    taken = seen.taken[number]
    return PathFigures(
        name=name,
        share=taken / seen.samples,
        latency_ms=timing.of_way(name),
        accuracy=seen.right[number] / taken if taken else None,
    )


def _energy(path: Path, costs: Sequence[tuple[GraphCost, float]], batches: Batches, profile: ProfileSpec) -> Energy:
    def prepare() -> Callable[[], object]:
        model = AdaptedModel.load(path, profile.threads[0])
        samples = itertools.cycle(batches.with_batch_size(1))
        return lambda: model(model.expected_input(next(samples)[0].numpy()))

    measured = energy_of_calls(prepare)
    if measured is not None:
        return measured
    found = [(estimate(cost).millijoules, share) for cost, share in costs]
    return Energy(sum(share * each for each, share in found), "estimate", "expected over the ways")


def unfolded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put the longest branch of every If in its place."""
    graph = proto.graph
    while (place := next((i for i, node in enumerate(graph.node) if node.op_type == "If"), None)) is not None:
        decision = graph.node[place]
        longest = max((entry.g for entry in decision.attribute), key=lambda branch: len(branch.node))
        _rename(longest.node, set(decision.output))
        names = zip([value.name for value in longest.output], decision.output, strict=True)
        results = [helper.make_node("Identity", [inner], [outer]) for inner, outer in names]
        nodes = [*graph.node[:place], *longest.node, *results, *graph.node[place + 1 :]]
        graph.initializer.extend(longest.initializer)
        graph.sparse_initializer.extend(longest.sparse_initializer)
        del graph.node[:]
        graph.node.extend(nodes)
    return proto


def _rename(nodes: Iterable[onnx.NodeProto], taken: set[str]) -> None:
    """Give values inside a branch that have a name of the If's own results another one; scopes kept them apart."""
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [f"inside/{name}" if name in taken else name for name in names]
        for attribute in node.attribute:
            _rename(attribute.g.node, taken)
