"""What a model costs as a function of how many units of each group stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from adaptkit.pruning.channels import ChannelGraph
from adaptkit.pruning.groups import Lengths
from adaptkit.pruning.select import Cost, Counts
from adaptkit.pruning.values import Product

if TYPE_CHECKING:
    from adaptkit.profiling.layer_latency import LatencyTable, LayerShape


def cost_of(graph: ChannelGraph, kind: str, open_groups: Sequence[int], layers: Cost | None = None) -> Cost:
    """Return the cost for the counts of the open groups, all others whole.

    Args:
        graph: The groups.
        kind: "macs", "params" or "latency".
        open_groups: Numbers of the groups that may be cut.
        layers: The cost for the counts of all groups, where kind is "latency".
    """
    totals = {"macs": graph.macs.total, "params": graph.parameters.total}
    total: Callable[[Counts], float] | None = layers if kind == "latency" else totals[kind]
    assert total is not None
    every = np.array([group.size for group in graph.groups], dtype=float)

    def cost(kept: Counts) -> float:
        counts = every.copy()
        counts[list(open_groups)] = kept
        return total(counts)

    return cost


@dataclass(frozen=True)
class _Layer:
    shape: LayerShape
    made: Lengths
    taken: Lengths

    def at(self, kept: Counts) -> LayerShape:
        """Return the shape of the layer after a cut; whole groups of a convolution go where its groups are many."""
        shape = self.shape
        made, taken = round(self.made.total(kept)), round(self.taken.total(kept))
        if shape.groups == 1:
            return replace(shape, out_channels=made, in_channels=taken)
        each = shape.in_channels // shape.groups
        if taken < each:
            return replace(shape, out_channels=made, in_channels=taken * shape.groups)
        groups = round(shape.groups * made / shape.out_channels)
        if groups * (shape.out_channels // shape.groups) != made:
            groups = shape.groups
        return replace(shape, out_channels=made, in_channels=groups * each, groups=groups)


def latency_cost(model: nn.Module, graph: ChannelGraph, table: LatencyTable) -> Cost:
    """Return the summed time of all convolutions and linear layers, in seconds, for the counts of all groups.

    Args:
        model: The model that the graph was made from.
        graph: Its groups.
        table: Measures a layer's shape on ONNX Runtime, once.
    """
    from adaptkit.profiling.layer_latency import layer_shapes

    layers = []
    for name, shape in layer_shapes(model, graph.inputs).items():
        value = graph.tensors.get(f"{name}.weight")
        if value is not None:
            made, taken = (graph.lengths([_length(value.shape[dim], value.line(dim))]) for dim in (0, 1))
            layers.append(_Layer(shape, made, taken))

    def cost(kept: Counts) -> float:
        return sum(table.seconds(layer.at(kept)) for layer in layers)

    return cost


def _length(size: int, ids: object) -> Product:
    return Product(float(size), ()) if ids is None else Product(1.0, (np.asarray(ids),))
