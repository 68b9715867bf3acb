"""The simulator's graph in evaluation: in place of float operations those of ONNX Runtime's integer kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx, nn

from adaptkit.quantization.integers import (
    Divided,
    IntegerLayer,
    IntegerMean,
    IntegerOperation,
    IntegerPool,
    IntegerProduct,
    IntegerSum,
)
from adaptkit.quantization.placement import CLIPS, LAYERS, aten
from adaptkit.quantization.plan import Grid

_PAIRS = {aten.add.Tensor: IntegerSum, aten.mul.Tensor: IntegerProduct}
_BOUNDS: Mapping[Any, tuple[float, float]] = {
    aten.relu.default: (0.0, math.inf),
    aten.relu6.default: (0.0, 6.0),
    aten.hardtanh.default: (-1.0, 1.0),
    aten.clamp.default: (-math.inf, math.inf),
    aten.clamp_min.default: (-math.inf, math.inf),
}
_MEANS = {aten.mean.dim, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
_EPSILON = np.finfo(np.float32).eps
_SIDES = ([2, 3], [-2, -1], [3, 2], [-1, -2])


def bit_true(module: fx.GraphModule, grids: Mapping[str, Grid]) -> fx.GraphModule:
    """Let a quantized graph compute as its file does, rounding for rounding.

    Layers, sums and global means between integers add up whole numbers; what else is rounded is rounded by division.
    A float operation in between stays one: its last bits are the runtime's own. In float32 throughout, sums that lie
    next to a tie are rounded to its other side now and then, and depth carries that on, the farther the fewer bits the
    weights have, until another class comes out.

    Args:
        module: The simulator's graph; not changed.
        grids: Name of a module that rounds, or that would round what is on its grid already, to the grid.

    Returns:
        A graph with the same inputs and outputs that shares the modules which stay.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(module.graph, copied))
    root = nn.Module()
    for name, child in module.named_children():
        root.add_module(name, child)
    for node in list(graph.nodes):
        if node.op != "call_module" or not _rounds_activation(node, root, grids):
            continue
        found = _operation(node, grids)
        operation, values = found if found is not None else (Divided(grids[str(node.target)]), [node.args[0]])
        name = f"exact_{node.target}"
        root.add_module(name, operation)
        with graph.inserting_before(node):
            call = graph.create_node("call_module", name, tuple(values))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    exact = fx.GraphModule(root, graph)
    exact.graph.eliminate_dead_code()
    exact.recompile()
    return exact


def _rounds_activation(node: fx.Node, root: nn.Module, grids: Mapping[str, Grid]) -> bool:
    name = str(node.target)
    if name.endswith(("_weight", "_bias")) or name not in grids or isinstance(getattr(root, name), nn.Identity):
        return False
    return grids[name].axis is None and grids[name].block is None


def _operation(node: fx.Node, grids: Mapping[str, Grid]) -> tuple[IntegerOperation, list[fx.Node]] | None:
    """Find what the runtime fuses into one integer operation with the rounding of its result; its values, too."""
    result, source = grids[str(node.target)], node.args[0]
    assert isinstance(source, fx.Node)
    if result.bits != 8:
        return None
    if source.target in CLIPS:
        if not _absorbed(source, result) or len(source.users) > 1:
            return None
        source = source.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_function" or len(source.users) > 1:
        return None
    if source.target in LAYERS:
        return _layer(source, result, grids)
    if source.target in _PAIRS and not source.kwargs:
        values = _on_grids(source.args[:2], grids)
        return None if values is None else (_PAIRS[source.target](_grids_of(values, grids), result), values)
    return _mean(source, result, grids)


def _layer(layer: fx.Node, result: Grid, grids: Mapping[str, Grid]) -> tuple[IntegerOperation, list[fx.Node]] | None:
    operands = [argument for argument in layer.args[:3] if argument is not None]
    values = _on_grids(operands, grids)
    if not values:
        return None
    found = _grids_of(values, grids)
    integer = found[1].bits <= 8 and found[1].block is None and not any(found[1].zero_point)
    # A linear layer of sequences is a product and a sum to the runtime, and the sum is computed in floats.
    rows = layer.target != aten.linear.default or layer.meta["val"].dim() == 2
    return (IntegerLayer(found, result, layer.target, tuple(layer.args[3:])), values) if integer and rows else None  # type: ignore[arg-type]


def _mean(node: fx.Node, result: Grid, grids: Mapping[str, Grid]) -> tuple[IntegerOperation, list[fx.Node]] | None:
    if node.target not in _MEANS or node.kwargs or node.meta["val"].dim() != 4:
        return None
    values = _on_grids(node.args[:1], grids)
    if values is None:
        return None
    found = _grids_of(values, grids)
    if _is_global(node):
        return IntegerMean(found, result), values
    if node.target == aten.avg_pool2d.default and len(node.args) <= 3:
        kernel = _pair(node.args[1])
        return IntegerPool(found, result, kernel, _pair(node.args[2]) if len(node.args) == 3 else kernel), values
    return None


def _is_global(node: fx.Node) -> bool:
    if node.target == aten.mean.dim:
        return list(node.args[1]) in _SIDES and node.args[2:] == (True,)  # type: ignore[arg-type]
    return node.target == aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]  # type: ignore[arg-type]


def _pair(sizes: Any) -> tuple[int, int]:
    return int(sizes[0]), int(sizes[-1])


def _on_grids(values: object, grids: Mapping[str, Grid]) -> list[fx.Node] | None:
    """Give the values back as nodes where all lie on grids, None otherwise."""
    nodes = [value for value in values if isinstance(value, fx.Node)]  # type: ignore[attr-defined]
    known = all(node.op == "call_module" and _name(node) in grids for node in nodes)
    return nodes if known and len(nodes) == len(values) else None  # type: ignore[arg-type]


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("exact_")


def _grids_of(nodes: list[fx.Node], grids: Mapping[str, Grid]) -> tuple[Grid, ...]:
    return tuple(grids[_name(node)] for node in nodes)


def _absorbed(clip: fx.Node, grid: Grid) -> bool:
    """Whether clamping to the grid does all that a clip would, as ONNX Runtime sees it."""
    low, high = _bounds(clip)
    scale = np.float32(grid.scale[0])
    lowest, highest = (scale * np.float32(end - grid.zero_point[0]) for end in (grid.lowest, grid.highest))
    return bool(low - lowest <= _EPSILON and highest - high <= _EPSILON)


def _bounds(clip: fx.Node) -> tuple[float, float]:
    low, high = _BOUNDS[clip.target]
    given: tuple[Any, ...] = clip.args[1:]
    if given and given[0] is not None:
        low = float(given[0])
    if len(given) > 1 and given[1] is not None:
        high = float(given[1])
    return low, high
