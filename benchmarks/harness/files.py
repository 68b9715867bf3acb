"""Exported files side by side: accuracy, bytes, energy, latency in turns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptkit.export.files import file_bytes, read_model
from adaptkit.loading.batches import Batches
from adaptkit.metrics.file import file_accuracy
from adaptkit.profiling.energy import estimate
from adaptkit.profiling.graph import graph_cost
from adaptkit.profiling.latency import compare
from adaptkit.specs import ProfileSpec
from benchmarks.harness.suite import Found


def measure_files(paths: Mapping[str, Path], test: Batches) -> dict[str, Found]:
    """Measure files; latency ratios are to the first one. Energy is an estimate for all of them."""
    timed = compare(list(paths.values()), ProfileSpec(batch_sizes=(1, 64)))
    return {name: {
        "accuracy": file_accuracy(path, test),
        "bytes": file_bytes(path),
        "energy_mj": estimate(graph_cost(read_model(path))).millijoules,
        "latency_ms": {key: each.p50 for key, each in figures.latency_ms.items()},
        "faster": {key: each.model_dump() for key, each in figures.speedup.items()},
    } for (name, path), figures in zip(paths.items(), timed, strict=True)}  # fmt: skip


def faster(found: Found, key: str) -> str:
    """Write a ratio of latencies with its quartiles."""
    ratio = found["faster"][key]
    return f"{ratio['median']:.2f} × ({ratio['low']:.2f} to {ratio['high']:.2f})"
