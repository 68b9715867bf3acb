"""Sensitivity: how much the loss rises when one group alone is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batch, BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.pruning.block_ranking import batch_statistics
from adaptkit.pruning.groups import Group
from adaptkit.pruning.select import Candidate

Criterion = Callable[[Any, Tensor], Tensor]

_SAMPLES = 256
_MEASURED = 8


def sensitivities(
    model: nn.Module,
    groups: Sequence[Group],
    candidates: Sequence[Candidate],
    data: BatchSource,
    loss: Criterion,
) -> list[NDArray[np.float64]]:
    """Measure L(g, n) - L for every group g, n of its units left and all other groups whole.

    The least important units go first; that they are gone is played by zeros in every parameter that goes with them.
    Of many numbers n at most eight are measured and those between interpolated; a rise that is less than that of a
    smaller cut is chance, and taken to be the same. Normalizations work on the statistics of the batch, which training
    or `renew_statistics` learn anew: with the old ones, the shift alone would decide.

    Args:
        model: Left as it was; evaluation mode.
        groups: What may be cut.
        candidates: For each, the importance of its units and the numbers that may stay.
        data: Inputs and targets, of which the first 256 are used.
        loss: Maps (output, target) to a scalar.

    Returns:
        For each group a vector with an entry for every number of units that stay, from 0 to all; NaN below the floor.

    Raises:
        DataError: There is no batch of two samples.

    Source: Li et al. 2017, "Pruning filters for efficient convnets", section 3.2.
    """
    batches = _first(data)
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    with evaluating(model), batch_statistics(model), torch.no_grad():
        whole = _mean_loss(model, batches, loss)
        return [
            _curve(one, lambda units, g=group: _loss_without(model, g, units, tensors, batches, loss) - whole)  # type: ignore[misc]
            for group, one in zip(groups, candidates, strict=True)
        ]


@contextmanager
def zeroed(group: Group, units: NDArray[np.int64], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Set to zero all that goes with some units, for as long as it takes.

    Args:
        group: Whose units they are.
        units: Their numbers.
        tensors: Parameters by name, edited in place and restored.

    Example:
        >>> from adaptkit.pruning.groups import Slice
        >>> weight = torch.ones(2, 3)
        >>> with zeroed(Group("w", (Slice("w", 1, np.array([[0], [2]])),), 2), np.array([1]), {"w": weight}):
        ...     weight[0]
        tensor([1., 1., 0.])
        >>> weight[0]
        tensor([1., 1., 1.])
    """
    kept: dict[str, Tensor] = {}
    pieces = [piece for piece in group.slices if piece.name in tensors]
    try:
        for piece in pieces:
            tensor = tensors[piece.name]
            kept.setdefault(piece.name, tensor.clone())
            gone = torch.from_numpy(piece.indices[units].ravel()).to(tensor.device)
            tensor.index_fill_(piece.dim, gone, 0)
        yield
    finally:
        for name, tensor in kept.items():
            tensors[name].copy_(tensor)


def _curve(one: Candidate, rise: Callable[[NDArray[np.int64]], float]) -> NDArray[np.float64]:
    """Measure the rise at some of the numbers of units that may stay, and draw a line through them."""
    levels = one.levels()
    places = np.unique(np.linspace(0, len(levels) - 1, min(len(levels), _MEASURED + 1)).round().astype(int))
    measured = np.array([levels[place] for place in places])
    order = one.order()
    rises = [0.0, *(rise(order[: one.size - level]) for level in measured[1:])]
    rising = np.maximum.accumulate(rises)
    every = np.arange(one.size + 1)
    curve = np.interp(every, measured[::-1], rising[::-1])
    curve[every < one.floor] = np.nan
    return curve


def _loss_without(
    model: nn.Module,
    group: Group,
    units: NDArray[np.int64],
    tensors: Mapping[str, Tensor],
    batches: Sequence[Batch],
    loss: Criterion,
) -> float:
    with zeroed(group, units, tensors):
        return _mean_loss(model, batches, loss)


def _mean_loss(model: nn.Module, batches: Sequence[Batch], loss: Criterion) -> float:
    total = sum(float(loss(first_output(model(x)), y)) * len(x) for x, y in batches)
    return total / sum(len(x) for x, _ in batches)


def _first(data: BatchSource) -> list[Batch]:
    """Read the first samples, in batches that have statistics."""
    batches: list[Batch] = []
    left = _SAMPLES
    for x, y in as_batches(data):
        x, y = x[:left], y[:left]
        if len(x) > 1:
            batches.append((x, y))
            left -= len(x)
        if left <= 0:
            break
    if not batches:
        raise DataError("ranking: sensitivity needs a batch of at least two calibration samples; give some")
    return batches
