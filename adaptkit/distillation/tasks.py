"""An old task and a new one: the classes of the old one have the first numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batch, Batches, BatchSource, BatchStream, LoaderBatches, as_batches
from adaptkit.metrics.task import device_of, first_output
from adaptkit.modes import evaluating


@dataclass(frozen=True)
class TaskAccuracies:
    """Top-1 accuracy of each task among its own classes; None where there is no sample of it.

    Args:
        old: Of the old task.
        new: Of the new one.
    """

    old: float | None
    new: float | None


def of_new_task(source: BatchSource, old_classes: int, seed: int) -> BatchStream:
    """Leave out the samples of the old task; batches are shuffled as `fit` does.

    What is left is cut anew, evenly, into batches of the source's size, as many each epoch.

    Args:
        source: Samples of the new task, perhaps of the old one too. A loader is read once, to count them.
        old_classes: Targets from here on are of the new task.
        seed: Source of the order.

    Raises:
        DataError: No sample is left.

    Example:
        >>> source = torch.zeros(6, 2), torch.tensor([0, 1, 2, 3, 2, 1])
        >>> of_new_task(source, old_classes=2, seed=0).num_samples
        3
    """
    batches = as_batches(source, shuffle=True, seed=seed)
    if isinstance(batches, Batches):
        index = torch.arange(len(batches.y)) if batches.index is None else batches.index
        kept = index[batches.y[index] >= old_classes]
        _require_samples(len(kept), old_classes)
        return dataclasses.replace(batches, index=kept)
    assert isinstance(batches, LoaderBatches)
    sizes = _new_sizes(batches, old_classes)
    return dataclasses.replace(batches, source=_NewTask(batches.source, old_classes, sizes), batch_size=None)


@dataclass(frozen=True)
class _NewTask:
    """The samples of a loader, less those of the old task, in batches of fixed sizes.

    What a shuffling loader has of the new task in each batch changes with the epoch, the number of steps must not. A
    loader that leaves samples out may have fewer in another epoch: then it is read again from its start.
    """

    source: Iterable[Batch]
    old_classes: int
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        parts = self._parts()
        x, y = next(parts)
        for size in self.sizes:
            while len(y) < size:
                more_x, more_y = next(parts)
                x, y = torch.cat([x, more_x]), torch.cat([y, more_y])
            yield x[:size], y[:size]
            x, y = x[size:], y[size:]

    def _parts(self) -> Iterator[Batch]:
        """Yield what is of the new task in each batch of the loader, again and again."""
        while True:
            found = False
            for x, y in self.source:
                new = y >= self.old_classes
                if new.any():
                    found = True
                    yield x[new], y[new]
            if not found:
                _require_samples(0, self.old_classes)


def _new_sizes(batches: LoaderBatches, old_classes: int) -> tuple[int, ...]:
    """Cut the new task's samples of epoch 0 evenly: a batch of one sample would stop batch normalization."""
    counts = [(len(y), int((y >= old_classes).sum())) for _, y in batches]
    new = sum(count for _, count in counts)
    _require_samples(new, old_classes)
    number = -(-new // max(size for size, _ in counts))
    return tuple(new * (i + 1) // number - new * i // number for i in range(number))


def _require_samples(count: int, old_classes: int) -> None:
    if count == 0:
        raise DataError(
            f"the training data has no sample of the new task: its classes have the numbers from {old_classes} on"
        )


def task_accuracies(model: nn.Module, batches: BatchSource, old_classes: int) -> TaskAccuracies:
    """Score both tasks, each among its own classes, as the task of a sample is known (Li and Hoiem 2016, section 4).

    Args:
        model: Run in evaluation mode, which is undone afterwards.
        batches: Samples of both tasks.
        old_classes: Targets from here on are of the new task.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 9.0, 0.0], [9.0, 0.0, 0.0, 1.0]])
        >>> task_accuracies(nn.Identity(), (x, torch.tensor([0, 2])), old_classes=2)
        TaskAccuracies(old=1.0, new=0.0)
    """
    right, count, device = [0, 0], [0, 0], device_of(model)
    with evaluating(model), torch.inference_mode():
        for x, y in as_batches(batches):
            output, target = first_output(model(x.to(device))), y.to(device)
            own = torch.where(
                target < old_classes,
                output[:, :old_classes].argmax(1),
                output[:, old_classes:].argmax(1) + old_classes,
            )
            for task, of_task in enumerate((target < old_classes, target >= old_classes)):
                right[task] += int((own == target)[of_task].sum())
                count[task] += int(of_task.sum())
    old, new = (hits / total if total else None for hits, total in zip(right, count, strict=True))
    return TaskAccuracies(old, new)
