"""Ranges of activations over the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import DataError
from adaptkit.quantization.capture import Captured, module_of, observe
from adaptkit.quantization.ranges import Histogram

_BATCH = 64
_BINS = 2048


def batches(source: Any, limit: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs of at most `limit` samples, in batches.

    Args:
        source: An (x, y) pair of tensors, or anything that yields (x, y) batches.
        limit: Number of samples after which to stop.
    """
    if isinstance(source, (tuple, list)) and source and isinstance(source[0], Tensor):
        source = [(x, None) for x in torch.split(source[0], _BATCH)]
    for batch in source:
        if limit <= 0:
            return
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield (x[:limit],)
        limit -= len(x)


def histograms(
    captured: Captured, model: nn.Module, groups: dict[str, str], samples: Callable[[], Iterable[tuple[Tensor, ...]]]
) -> dict[str, Histogram]:
    """Count the values of every group of tensors, in two passes: one for the range, one for the bins.

    Memory: two figures a tensor in the first pass, 2048 bins a group in the second, whatever the number of samples.

    Args:
        captured: The float graph.
        model: Holds the parameters.
        groups: Tensor to the name of its group.
        samples: Starts a pass over the inputs; every call must yield the same.

    Raises:
        DataError: There are no samples, or an activation is NaN or infinite; names the tensor.
    """
    limits: dict[str, tuple[float, float]] = {}
    counts: dict[str, Tensor] = {}

    def widen(node: fx.Node, value: Tensor) -> None:
        low, high = (float(limit) for limit in torch.aminmax(value))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise DataError(
                f"{_describe(node)} is not finite on the calibration data ({low} … {high}): "
                "look for broken samples, or for weights that overflow"
            )
        old = limits.get(groups[node.name], (low, high))
        limits[groups[node.name]] = min(low, old[0]), max(high, old[1])

    def count(node: fx.Node, value: Tensor) -> None:
        name = groups[node.name]
        low, high = limits[name]
        if high > low:
            found = torch.histc(value.float(), _BINS, low, high).double()
            counts[name] = counts[name] + found if name in counts else found

    for record in (widen, count):
        _pass(captured, model, groups, samples(), record)
    if not limits:
        raise DataError("the calibration data is empty: quantization needs at least one batch")
    empty = torch.zeros(_BINS, dtype=torch.float64)
    return {name: Histogram(counts.get(name, empty), *limits[name]) for name in limits}


def _pass(
    captured: Captured,
    model: nn.Module,
    groups: dict[str, str],
    samples: Iterable[tuple[Tensor, ...]],
    record: Callable[[fx.Node, Tensor], None],
) -> None:
    module = fx.GraphModule(nn.Module(), captured.graph)

    def pick(node: fx.Node, value: Any) -> None:
        if node.name in groups:
            record(node, value)

    with torch.no_grad():
        for inputs in samples:
            observe(module, captured.arguments(model, inputs), pick)


def _describe(node: fx.Node) -> str:
    where = module_of(node)
    return f"the activation {node.name}" + (f" in {where}" if where else "")
