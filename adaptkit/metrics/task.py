"""How well a model does its task, on any source of (x, y) batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.modes import evaluating

Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(model: nn.Module, batches: BatchSource) -> float:
    """Share of samples whose highest output is the target (top-1).

    Args:
        model: Maps inputs to N × classes scores; run in eval mode, which is undone afterwards.
        batches: Targets are class numbers.

    Example:
        >>> x = torch.eye(3)
        >>> accuracy(nn.Identity(), (x, torch.tensor([0, 1, 0])))
        0.6666666666666666
    """
    right = count = 0
    with evaluating(model), torch.inference_mode():
        for output, y in _outputs(model, batches):
            right += int((output.argmax(1) == y).sum())
            count += len(y)
    return right / count


def evaluate(model: nn.Module, batches: BatchSource, metric: Metric | None = None) -> float:
    """Mean of a metric over all samples; top-1 accuracy where no metric is given.

    Args:
        model: Run in eval mode, which is undone afterwards.
        batches: What to run it on.
        metric: Maps (output, target) of a batch to its mean score, higher is better.
    """
    if metric is None:
        return accuracy(model, batches)
    total, count = 0.0, 0
    with evaluating(model), torch.inference_mode():
        for output, y in _outputs(model, batches):
            total += float(metric(output, y)) * len(y)
            count += len(y)
    return total / count


def first_output(output: Any) -> Tensor:
    """Take the main output: the first element where a model gives several (GoogLeNet, Inception in training).

    One of half precision is returned in single precision, in which losses are to be computed.

    Raises:
        ModelError: The output is neither a tensor nor a tuple that begins with one.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ModelError(
            f"a model gives a tensor, or a tuple that begins with one; this one gives {type(output).__name__}"
        )
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def is_number(shape: tuple[int, ...]) -> bool:
    """Say whether an output or target of this shape, without the batch, is one number.

    Example:
        >>> is_number(()), is_number((1,)), is_number((10,))
        (True, True, False)
    """
    return shape in ((), (1,))


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter; the CPU for a model without parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _outputs(model: nn.Module, batches: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
    device = device_of(model)
    for x, y in as_batches(batches):
        yield first_output(model(x.to(device))), y.to(device)
