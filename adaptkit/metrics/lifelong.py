"""What a model that learns task after task keeps of the earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import DataError
from adaptkit.loading.batches import mixed_seed
from adaptkit.metrics.arrays import Values, finite
from adaptkit.metrics.estimate import Estimate, check_confidence
from adaptkit.metrics.resampling import percentile, resampled_counts


def accuracy_matrix(right: Sequence[Values]) -> Tensor:
    """Compute R, the accuracy on every task after every task (Lopez-Paz and Ranzato 2017, section 2).

    Args:
        right: For each task j, T × n_j truth values: after task i was learnt, sample s of task j is answered right.
            n_j are samples that were not trained on, the same after every task.

    Returns:
        T × T: Rᵢⱼ, accuracy on task j after task i was learnt; both in the order of learning.

    Raises:
        DataError: There are fewer than two tasks, a shape is wrong, or a task has no sample.

    Example:
        >>> accuracy_matrix([np.array([[1, 1], [1, 0]], bool), np.array([[0, 0], [1, 1]], bool)])
        tensor([[1.0000, 0.0000],
                [0.5000, 1.0000]], dtype=torch.float64)
    """
    return torch.stack([task.mean(1) for task in _tasks(right)], dim=1)


def forgetting_matrix(accuracies: Values) -> Tensor:
    """Compute f, how far each task has fallen from its best (Chaudhry et al. 2018, "Riemannian walk").

    fᵢⱼ = max over k from j to i − 1 of Rₖⱼ − Rᵢⱼ, for tasks j that were learnt before task i.

    Args:
        accuracies: R, T × T, of `accuracy_matrix`.

    Returns:
        T × T, from −1 to 1, below 0 where a task got better; NaN for j ≥ i.

    Raises:
        DataError: It is no square of at least 2, or holds NaN.

    Example:
        >>> forgetting_matrix(np.array([[0.9, 0.1], [0.5, 0.8]]))
        tensor([[   nan,    nan],
                [0.4000,    nan]], dtype=torch.float64)
    """
    table = _square(accuracies)
    found = torch.full_like(table, torch.nan)
    for i in range(1, len(table)):
        for j in range(i):
            found[i, j] = _fall(table, i, j)
    return found


@dataclass(frozen=True)
class Forgetting:
    """What is kept and lost after each task, with intervals.

    Args:
        accuracies: R, T × T.
        forgetting: f, T × T, in rows of numbers; None for j ≥ i.
        mean_forgetting: Mean of the last row of f.
        backward_transfer: BWT.
    """

    accuracies: tuple[tuple[float, ...], ...]
    forgetting: tuple[tuple[Estimate | None, ...], ...]
    mean_forgetting: Estimate
    backward_transfer: Estimate


def backward_transfer(accuracies: Values) -> float:
    """Compute BWT = 1/(T − 1) Σ over j < T of (R_Tⱼ − Rⱼⱼ) (Lopez-Paz and Ranzato 2017, equation 3).

    Args:
        accuracies: R, T × T, of `accuracy_matrix`.

    Returns:
        From −1 to 1; below 0 where later tasks cost earlier ones accuracy.

    Raises:
        DataError: It is no square of at least 2, or holds NaN.

    Example:
        >>> round(backward_transfer(np.array([[0.9, 0.1], [0.5, 0.8]])), 4)
        -0.4
    """
    return float(_transfer(_square(accuracies)))


def forgetting(right: Sequence[Values], *, confidence: float = 0.95, seed: int = 0) -> Forgetting:
    """Measure forgetting and backward transfer from the answers after every task.

    The maximum in f prefers lucky stages, so that f is a little too high, more so with few samples and many tasks; BWT
    is not.

    Args:
        right: As in `accuracy_matrix`.
        confidence: Of the intervals, by bootstrap over the samples of each task; a sample's answers after all tasks are
            drawn together. They do not cover another order of tasks or another training.
        seed: Source of the bootstrap.

    Raises:
        DataError: As `accuracy_matrix`, or a task has fewer than two samples.

    Example:
        >>> first, second = np.zeros((2, 50), bool), np.ones((2, 50), bool)
        >>> first[0] = True
        >>> found = forgetting([first, second])
        >>> found.backward_transfer.value, found.forgetting[1][0].value
        (-1.0, 1.0)
    """
    check_confidence(confidence)
    tasks = _tasks(right)
    if min(task.shape[1] for task in tasks) < 2:
        raise DataError("right: a task has one sample, which has no interval; give at least 2 of each task")
    drawn = torch.stack([_drawn(task, mixed_seed(seed, number)) for number, task in enumerate(tasks)], dim=2)

    def estimate(figure: Callable[[Tensor], Tensor]) -> Estimate:
        return percentile(figure(drawn).tolist(), float(figure(accuracies)), confidence)

    accuracies = accuracy_matrix(right)
    count = len(tasks)
    cells = tuple(
        tuple(estimate(partial(_fall, i=i, j=j)) if j < i else None for j in range(count)) for i in range(count)
    )
    mean = estimate(lambda r: torch.stack([_fall(r, count - 1, j) for j in range(count - 1)]).mean(0))
    return Forgetting(tuple(map(tuple, accuracies.tolist())), cells, mean, estimate(_transfer))


def _fall(accuracies: Tensor, i: int, j: int) -> Tensor:
    """Compute fᵢⱼ of one table, or of each of many."""
    return accuracies[..., j:i, j].amax(-1) - accuracies[..., i, j]


def _transfer(accuracies: Tensor) -> Tensor:
    """Compute BWT of one table, or of each of many."""
    first = accuracies.diagonal(dim1=-2, dim2=-1)
    return (accuracies[..., -1, :-1] - first[..., :-1]).mean(-1)


def _drawn(task: Tensor, seed: int) -> Tensor:
    """Draw samples anew and give their accuracy after every task, draws × T; samples with the same answers are one."""
    kinds, counts = np.unique(task.numpy(), axis=1, return_counts=True)
    shares = resampled_counts(lambda drawn: drawn @ kinds.T / task.shape[1], counts, seed=seed)
    return torch.from_numpy(np.stack(shares))


def _tasks(right: Sequence[Values]) -> list[Tensor]:
    tasks = [torch.from_numpy(finite(f"right[{j}]", task)) for j, task in enumerate(right)]
    if len(tasks) < 2:
        raise DataError(f"right: give the answers to at least 2 tasks; got {len(tasks)}")
    for j, task in enumerate(tasks):
        if task.ndim != 2 or task.shape[0] != len(tasks) or task.shape[1] == 0:
            raise DataError(
                f"right[{j}]: give tasks × samples, {len(tasks)} rows of at least one; got {tuple(task.shape)}"
            )
        if not ((task == 0) | (task == 1)).all():
            raise DataError(f"right[{j}]: give truth values, 1 where an answer is right and 0 where it is wrong")
    return tasks


def _square(accuracies: Values) -> Tensor:
    table = torch.from_numpy(finite("accuracies", accuracies))
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
        raise DataError(f"accuracies: give tasks × tasks, at least 2 × 2; got {tuple(table.shape)}")
    return table
