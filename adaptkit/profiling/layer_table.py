"""Layer by layer before and after: size, MACs, measured time, and why MACs and time do not agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from adaptkit.profiling.graph import NodeCost, file_cost
from adaptkit.profiling.layer_times import layer_times
from adaptkit.profiling.macs import Macs, count_macs
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.report.schema import Layer

_BLOCK = 16
_SMALL_US = 30.0
_FAR = 1.3
"""MACs and time disagree where their ratios are this far apart."""


@dataclass(frozen=True)
class LayerTable:
    """The layers that multiply, in the order of the model before.

    Args:
        layers: One a layer; a layer that was split is one line, with the sums of its parts.
        uncounted_ops: Operations without a formula, and a sentence where the two counters of MACs disagree.
    """

    layers: list[Layer]
    uncounted_ops: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    """One model and its file: what is known of each layer by its path."""

    modules: dict[str, nn.Module]
    macs: Macs
    times: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, NodeCost] = field(default_factory=dict)

    def layers(self) -> list[str]:
        return [path for path, macs in self.macs.per_layer.items() if path and macs]

    def parameters(self, layer: str) -> int:
        """Of the module and of what lies in it, except other layers."""
        others = {path for path in self.layers() if path != layer}
        inside = [
            path for path in self.modules if (path == layer or path.startswith(layer + ".")) and path not in others
        ]
        return sum(p.numel() for path in inside for p in self.modules[path].parameters(recurse=False))

    def shape(self, layer: str) -> list[int]:
        """Of the weight: the first parameter with more than one dimension."""
        found = [p for p in self.modules[layer].parameters(recurse=False) if p.dim() > 1]
        return list(found[0].shape) if found else []


def layer_table(
    before: nn.Module,
    after: nn.Module,
    example_inputs: tuple[Tensor, ...],
    baseline_path: Path | None = None,
    path: Path | None = None,
) -> LayerTable:
    """Compare two models layer by layer.

    Args:
        before: The original.
        after: The compressed one; its layers keep the paths they had.
        example_inputs: Inputs of one call, batch first.
        baseline_path: File of the original; without it there are no times.
        path: File of the compressed one.

    Example:
        >>> import torch
        >>> table = layer_table(nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Identity()), (torch.zeros(1, 8),))
        >>> [(layer.name, layer.macs_before, layer.macs_after) for layer in table.layers]
        [('0', 64, None)]
    """
    old, new = _side(before, example_inputs, baseline_path), _side(after, example_inputs, path)
    order = old.layers()
    parts = _parts(order, new.layers())
    quantized = any(cost.integer for cost in new.costs.values())
    return LayerTable(
        [_layer(name, old, new, parts[name], quantized) for name in order],
        tuple(sorted({*old.macs.uncounted, *new.macs.uncounted, *_disagreement(new.macs)})),
    )


def _side(model: nn.Module, example_inputs: tuple[Tensor, ...], path: Path | None) -> _Side:
    inner = model.model if isinstance(model, QuantizedModel) else model
    modules, macs = dict(inner.named_modules()), count_macs(inner, example_inputs)
    if path is None:
        return _Side(modules, macs)
    costs = {node.layer: node for node in file_cost(path).nodes}
    return _Side(modules, macs, layer_times(path), costs)


def _parts(before: list[str], after: list[str]) -> dict[str, list[str]]:
    """Map each layer before to itself and to what took its place below its path; new ones count to the nearest."""
    return {name: [other for other in after if other == name or other.startswith(name + ".")] for name in before}


def _layer(name: str, old: _Side, new: _Side, parts: list[str], quantized: bool) -> Layer:
    module = old.modules[name]
    times = [new.times[part] for part in parts if part in new.times]
    layer = Layer(
        name=name,
        kind=type(module).__name__,
        shape_before=old.shape(name),
        shape_after=new.shape(parts[0]) if parts else None,
        parameters_before=old.parameters(name),
        parameters_after=sum(new.parameters(part) for part in parts) if parts else None,
        macs_before=old.macs.per_layer[name],
        macs_after=sum(new.macs.per_layer[part] for part in parts) if parts else None,
        latency_us_before=old.times.get(name),
        latency_us_after=sum(times) if times else None,
    )
    cost = new.costs.get(parts[0]) if parts else None
    return layer.model_copy(update={"note": why(layer, cost, quantized)})


def why(layer: Layer, cost: NodeCost | None, quantized: bool) -> str:
    """Say in a few words why time did not follow the MACs; empty where it did, or where nothing was measured.

    Args:
        layer: Before and after.
        cost: What the file computes for it now.
        quantized: Whether other layers of the file are 8-bit.
    """
    if cost is None:
        return "removed" if layer.macs_after is None else ""
    if quantized and not cost.integer:
        return "float between 8-bit layers"
    if not (layer.macs_after and layer.latency_us_before and layer.latency_us_after):
        return ""
    fewer, faster = layer.macs_before / layer.macs_after, layer.latency_us_before / layer.latency_us_after
    if faster > fewer * _FAR:
        return "8-bit products" if cost.integer else ""
    if fewer < faster * _FAR:
        return ""
    return f"{fewer:.1f} × fewer MACs, {faster:.1f} × faster: {_brake(layer.latency_us_after, cost)}"


def _brake(microseconds: float, cost: NodeCost) -> str:
    odd = [count for count in cost.channels if count % _BLOCK]
    if cost.depthwise:
        return "depthwise, bound by memory"
    if microseconds < _SMALL_US:
        return "so small that starting it dominates"
    if odd:
        return f"{odd[0]} channels, kernels work on blocks of {_BLOCK}"
    return "bound by memory, not by products"


def _disagreement(macs: Macs) -> list[str]:
    if macs.agrees:
        return []
    return [f"(the two counters disagree: {macs.total} and {macs.cross_check} MACs)"]
