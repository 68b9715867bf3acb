"""Sensitivity: how much the loss rises when a group is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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


class Sensitivity:
    """The loss of a model without some units of its groups, on the first 256 samples.

    That units are gone is played by zeros in every parameter that goes with them. Normalizations work on the statistics
    of the batch, which training or `renew_statistics` learn anew: with the old ones, the shift alone would decide.

    Args:
        model: Left as it was; evaluation mode.
        groups: What may be cut.
        data: Inputs and targets.
        loss: Maps (output, target) to a scalar.

    Raises:
        DataError: There is no batch of two samples.

    Source: Li et al. 2017, "Pruning filters for efficient convnets", section 3.2.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group], data: BatchSource, loss: Criterion) -> None:
        self.groups = groups
        self._model = model
        self._batches = _first(data)
        self._criterion = loss
        self._tensors = {name: parameter.data for name, parameter in model.named_parameters()}

    def loss(self, removed: Sequence[Sequence[int]]) -> float:
        """Return the mean loss without these units, numbers for each group."""
        with ExitStack() as stack:
            stack.enter_context(evaluating(self._model))
            stack.enter_context(batch_statistics(self._model))
            stack.enter_context(torch.no_grad())
            for group, units in zip(self.groups, removed, strict=True):
                stack.enter_context(zeroed(group, units, self._tensors))
            total = sum(float(self._criterion(first_output(self._model(x)), y)) * len(x) for x, y in self._batches)
        return total / sum(len(x) for x, _ in self._batches)

    def rises(self, candidates: Sequence[Candidate], removed: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
        """Measure L(g, n) - L(g, all) for every group g, n of its units left and the other groups cut already.

        The least important units go first. Of many numbers n at most eight are measured and those between interpolated;
        a rise that is less than that of a smaller cut is chance, and taken to be the same.

        Args:
            candidates: For each group, the importance of its units and the numbers that may stay.
            removed: Units of each group that are gone while the others are measured.

        Returns:
            For each group a vector with an entry for every number of units that stay, from 0 to all; NaN below the
            floor.
        """
        return [self._curve(number, one, removed) for number, one in enumerate(candidates)]

    def _curve(self, number: int, one: Candidate, removed: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Measure the loss at some of the numbers of units that may stay, and draw a line through them."""
        levels = one.levels()
        places = np.unique(np.linspace(0, len(levels) - 1, min(len(levels), _MEASURED + 1)).round().astype(int))
        measured = np.array([levels[place] for place in places])
        order = one.order().tolist()
        without = [list(units) for units in removed]
        losses = []
        for level in measured:
            without[number] = order[: one.size - level]
            losses.append(self.loss(without))
        rising = np.maximum.accumulate(np.array(losses) - losses[0])
        every = np.arange(one.size + 1)
        curve = np.interp(every, measured[::-1], rising[::-1])
        curve[every < one.floor] = np.nan
        return curve


@contextmanager
def zeroed(group: Group, units: Sequence[int], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Set to zero all that goes with some units, for as long as it takes.

    Args:
        group: Whose units they are.
        units: Their numbers.
        tensors: Parameters by name, edited in place and restored.

    Example:
        >>> from adaptkit.pruning.groups import Slice
        >>> weight = torch.ones(2, 3)
        >>> with zeroed(Group("w", (Slice("w", 1, np.array([[0], [2]])),), 2), [1], {"w": weight}):
        ...     weight[0]
        tensor([1., 1., 0.])
        >>> weight[0]
        tensor([1., 1., 1.])
    """
    kept: dict[str, Tensor] = {}
    pieces = [piece for piece in group.slices if piece.name in tensors and len(units)]
    try:
        for piece in pieces:
            tensor = tensors[piece.name]
            kept.setdefault(piece.name, tensor.clone())
            gone = torch.from_numpy(piece.indices[list(units)].ravel()).to(tensor.device)
            tensor.index_fill_(piece.dim, gone, 0)
        yield
    finally:
        for name, tensor in kept.items():
            tensors[name].copy_(tensor)


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
