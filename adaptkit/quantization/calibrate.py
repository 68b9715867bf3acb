"""Ranges of activations over the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import DataError
from adaptkit.quantization.capture import Captured, module_of, observe, reason_of
from adaptkit.quantization.ranges import Histogram
from adaptkit.quantization.rectified import Rectifier, rectified_operands

_BATCH = 64
_BINS = 2048


def batches(source: Any, limit: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs of at most `limit` samples, in batches.

    For a model of several inputs, x is a tuple or list of them.

    Args:
        source: An (x, y) pair of tensors, or anything that yields (x, y) batches.
        limit: Number of samples after which to stop.

    Raises:
        DataError: There is no data, it can be read only once, or it is nothing that yields (x, y).
    """
    if source is None:
        raise DataError("there is no calibration data: give Context(calibration=(x, y))")
    if isinstance(source, Iterator):
        raise DataError("calibration data is read more than once: give (x, y), a list or a DataLoader, not a generator")
    if _is_one_batch(source):
        source = [(part,) for part in zip(*(torch.split(x, _BATCH) for x in _inputs(source)), strict=True)]
    elif isinstance(source, Tensor) or not isinstance(source, Iterable):
        raise DataError(
            f"calibration data is a pair of tensors (x, y) or a loader of such batches; got {type(source).__name__}"
        )
    for batch in source:
        if limit <= 0:
            return
        inputs = _inputs(batch)
        yield tuple(x[:limit] for x in inputs)
        limit -= len(inputs[0])


def _is_one_batch(source: Any) -> bool:
    """Tell (x, y) from a list of such batches, whose members are pairs themselves."""
    if not isinstance(source, (tuple, list)) or not source:
        return False
    return isinstance(source[0], Tensor) or (len(source) == 2 and isinstance(source[1], Tensor))


def _inputs(batch: Any) -> tuple[Tensor, ...]:
    """Take x out of (x, y), or out of what is x alone: one tensor, or several of one batch size."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    inputs = parts[0] if parts and isinstance(parts[0], (tuple, list)) else parts[:1]
    fits = all(isinstance(x, Tensor) and x.dim() for x in inputs) and len({len(x) for x in inputs}) == 1
    if not 1 <= len(parts) <= 2 or not fits:
        kinds = ", ".join(type(part).__name__ for part in parts)
        found = f"{type(batch).__name__} of {kinds}" if parts is batch else kinds
        raise DataError(
            "calibration data holds tensors (x, y), batch first, or ((x1, x2, …), y) for models of several inputs; "
            f"got a {found}"
        )
    return tuple(inputs)


def histograms(
    captured: Captured, model: nn.Module, groups: dict[str, str], samples: Callable[[], Iterable[tuple[Tensor, ...]]]
) -> dict[str, Histogram]:
    """Count the values of every group of tensors, in two passes: one for the range, one for the bins.

    Of what is added before a ReLU only the part that counts is counted (see `rectified`).

    Memory: two figures a tensor in the first pass, 2048 bins a group in the second, whatever the number of samples.

    Args:
        captured: The float graph.
        model: Holds the parameters.
        groups: Tensor to the name of its group.
        samples: Starts a pass over the inputs; every call must yield the same.

    Raises:
        DataError: There are no samples, the model does not run on them, or an activation is NaN or infinite; names it.
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
    sums = rectified_operands(captured.graph)

    def pick(node: fx.Node, value: Any) -> None:
        if node.name in groups:
            record(node, value)

    with torch.no_grad():
        for inputs in samples:
            if len(inputs) != len(captured.inputs):
                raise DataError(
                    f"the model takes {len(captured.inputs)} inputs, and a batch of the calibration data holds "
                    f"{len(inputs)}: give ((x1, x2, …), y) with one tensor an input"
                )
            try:
                observe(module, captured.arguments(model, inputs), Rectifier(sums, pick))
            except (RuntimeError, IndexError, TypeError) as error:
                form = " and ".join(f"{tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')}" for x in inputs)
                reason = reason_of(error)
                raise DataError(f"the model does not run on calibration inputs of shape {form}: {reason}") from error


def _describe(node: fx.Node) -> str:
    where = module_of(node)
    return f"the activation {node.name}" + (f" in {where}" if where else "")
