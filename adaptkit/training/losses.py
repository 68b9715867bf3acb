"""What a training step minimises: functions (model, x, y) -> (loss, output)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.metrics.task import first_output, is_number

StepLoss: TypeAlias = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Runs the model on x itself, and returns the scalar to minimise and the output that accuracy is counted on."""

_AUXILIARY_WEIGHT = 0.3


class OutputsError(ValueError):
    """A model gives other outputs than the targets of a batch need; the message goes on from the name of the batch."""


def supervised(criterion: Callable[[Tensor, Tensor], Tensor]) -> StepLoss:
    """Make a training loss from a function (output, target) -> scalar.

    Where a model in training gives further outputs of the same shape (GoogLeNet's auxiliary heads), their losses are
    added with weight 0.3 (Szegedy et al. 2015, "Going deeper with convolutions", section 5).

    Args:
        criterion: Maps the output and the target of a batch to a scalar.
    """

    def step_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = model(x)
        output = first_output(outputs)
        loss = criterion(output, y)
        for extra in auxiliary_outputs(outputs, output):
            loss = loss + _AUXILIARY_WEIGHT * criterion(extra, y)
        return loss, output

    return step_loss


def by_target(label_smoothing: float = 0.0) -> StepLoss:
    """Make the loss that suits the targets, `target_loss`.

    Args:
        label_smoothing: Share of a class that is spread over all classes, from 0 to 1.
    """

    def criterion(output: Tensor, target: Tensor) -> Tensor:
        return target_loss(output, target, label_smoothing)

    return supervised(criterion)


def target_loss(output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy where targets are classes, the mean squared error where they are numbers.

    Args:
        output: N × classes…; N or N × 1 for numbers.
        target: Class numbers or probabilities of classes; N or N × 1 real numbers.
        label_smoothing: Share of a class that is spread over all classes (Szegedy et al. 2016, section 7).

    Raises:
        OutputsError: Targets are numbers, and the model gives more than one a sample.

    Example:
        >>> import torch
        >>> target_loss(torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 2.0])).item()
        2.0
    """
    if not are_numbers(target):
        return F.cross_entropy(output, target, label_smoothing=label_smoothing)
    if output.numel() != target.numel():
        given = output.numel() / len(target)
        raise OutputsError(f"has one number a sample as target, the model gives {given:g}")
    return F.mse_loss(output.reshape(target.shape), target)


def are_numbers(target: Tensor) -> bool:
    """Say whether targets are one real number a sample, and not classes.

    Example:
        >>> import torch
        >>> are_numbers(torch.tensor([0.5, 2.0])), are_numbers(torch.tensor([0, 2])), are_numbers(torch.ones(2, 3))
        (True, False, False)
    """
    return target.is_floating_point() and is_number(tuple(target.shape[1:]))


def auxiliary_outputs(outputs: Any, main: Tensor) -> list[Tensor]:
    """List the further outputs of a model that look like the main one."""
    if not isinstance(outputs, tuple | list):
        return []
    return [extra for extra in outputs[1:] if isinstance(extra, Tensor) and extra.shape == main.shape]
