"""What went wrong in a training step, said of the data and the settings instead of torch's inside."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.training.losses import OutputsError
from adaptkit.training.settings import FitSettings

_IGNORED_LABEL = -100  # what torch's cross entropy leaves out


def fault_of_batch(error: Exception, model: nn.Module, x: Tensor, y: Tensor) -> str | None:
    """Say what about a batch made the loss fail; None where the cause is another.

    Args:
        error: What the loss raised.
        model: Run once more where a label may have no output.
        x: The batch.
        y: Its targets.

    Example:
        >>> error = IndexError("Target 4 is out of bounds.")
        >>> fault_of_batch(error, nn.Linear(1, 3), torch.zeros(2, 1), torch.tensor([0, 4]))
        'has the label 4, the model 3 outputs: labels go from 0 to 2'
    """
    if "more than 1 value per channel" in str(error) and len(x) == 1:
        return (
            "has one sample, on which no batch normalization can train: give the loader drop_last=True, or choose "
            "another batch size"
        )
    if "out of bounds" in str(error) and not y.is_floating_point():
        return _label_without_output(model, x, y)
    return str(error) if isinstance(error, OutputsError) else None


def fault_of_values(x: Tensor, y: Tensor) -> str | None:
    """Say that a batch holds infinities or NaN; None where it does not.

    Example:
        >>> fault_of_values(torch.tensor([1.0, float("nan")]), torch.tensor([0, 1]))
        'holds values that are not finite'
    """
    return None if x.isfinite().all() and y.isfinite().all() else "holds values that are not finite"


def divergence(loss: float, norm: float) -> str:
    """Say what of a step is no number.

    Args:
        loss: What was minimised.
        norm: Of its gradient.

    Example:
        >>> divergence(0.5, float("inf"))
        'the gradient is inf (the loss 0.5)'
    """
    if not math.isfinite(loss):
        return f"the training loss is {loss}"
    return f"the gradient is {norm} (the loss {loss:.3g})"


def remedy(settings: FitSettings) -> str:
    """Say which settings tame a training that runs away."""
    clip = settings.gradient_clip
    return f"lower learning_rate (now {settings.learning_rate:g}) or " + (
        "set gradient_clip, for example to 1.0" if clip is None else f"gradient_clip (now {clip:g})"
    )


def copied_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copy what a call in training changes without the optimizer: statistics, not weights."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def put_back_buffers(model: nn.Module, copies: dict[str, Tensor]) -> None:
    """Undo what calls have done to the buffers since `copied_buffers`."""
    for name, buffer in model.named_buffers():
        buffer.data = copies.get(name, buffer.data)


def _label_without_output(model: nn.Module, x: Tensor, y: Tensor) -> str | None:
    try:
        with evaluating(model), torch.no_grad():
            outputs = first_output(model(x)).shape[1]
    except (IndexError, RuntimeError):  # then it is the model itself that looks outside of something
        return None
    wrong = y[((y < 0) | (y >= outputs)) & (y != _IGNORED_LABEL)]
    if len(wrong) == 0:
        return None
    return f"has the label {int(wrong[0])}, the model {outputs} outputs: labels go from 0 to {outputs - 1}"
