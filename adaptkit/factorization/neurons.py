"""Which neurons of a layer matter least: scores of its outputs and its inputs, higher is more important."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.factorization.observe import Hook, first_batches, rows, watched
from adaptkit.loading.batches import BatchSource
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating

Scores = tuple[Tensor, Tensor]
"""Of the outputs, and of the inputs."""


def least_important(scores: Tensor, share: float) -> Tensor:
    """Mark the share of the neurons that has the lowest scores, rounded down.

    Example:
        >>> least_important(torch.tensor([3.0, 1.0, 2.0, 5.0]), 0.5)
        tensor([False,  True,  True, False])
    """
    marked = torch.zeros(len(scores), dtype=torch.bool)
    marked[scores.argsort(stable=True)[: math.floor(share * len(scores) + 1e-9)].cpu()] = True
    return marked


def by_weight(weight: Tensor) -> Scores:
    """Sum |w| over the weights of each output, and of each input.

    Example:
        >>> by_weight(torch.tensor([[1.0, -2.0], [0.0, 4.0]]))
        (tensor([3., 4.]), tensor([1., 6.]))
    """
    return weight.abs().flatten(1).sum(1), weight.abs().transpose(0, 1).flatten(1).sum(1)


def by_activation(model: nn.Module, names: Iterable[str], data: BatchSource, samples: int) -> dict[str, Scores]:
    """Sum |x| of every output and of every input over samples, and pixels or tokens.

    Args:
        model: Run in evaluation mode; left as it was.
        names: Convolutions and linear layers.
        data: Inputs, the first of which are used.
        samples: How many.

    Raises:
        DataError: There is no sample.
    """
    sums: dict[str, Scores] = {}

    def remember(name: str) -> Hook:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            _add(sums, name, rows(layer, output).abs().sum(0), rows(layer, inputs[0]).abs().sum(0))

        return hook

    with watched(model, {name: remember(name) for name in names}), torch.no_grad():
        for x, _ in first_batches(data, samples):
            model(x)
    return sums


def by_loss(
    model: nn.Module, names: Iterable[str], data: BatchSource, samples: int, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Scores]:
    """Sum |Σ w ∂L/∂w| over batches, the change of the loss to first order if the weights of a neuron were zero.

    Args:
        model: Run forward and back in evaluation mode; left as it was.
        names: Convolutions and linear layers.
        data: Inputs and targets, the first of which are used.
        samples: How many.
        loss: Maps (output, target) to a scalar.

    Raises:
        DataError: There is no sample.
    """
    names = list(names)
    weights = [model.get_submodule(name).get_parameter("weight") for name in names]
    frozen = [weight for weight in weights if not weight.requires_grad]
    sums: dict[str, Scores] = {}
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            for x, y in first_batches(data, samples):
                value = loss(first_output(model(x)), y)
                gradients = torch.autograd.grad(value, weights, materialize_grads=True)
                for name, weight, gradient in zip(names, weights, gradients, strict=True):
                    products = (weight * gradient).detach()
                    outputs, inputs = products.flatten(1).sum(1), products.transpose(0, 1).flatten(1).sum(1)
                    _add(sums, name, outputs.abs(), inputs.abs())
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    return sums


def _add(sums: dict[str, Scores], name: str, outputs: Tensor, inputs: Tensor) -> None:
    before = sums.get(name, (torch.zeros_like(outputs), torch.zeros_like(inputs)))
    sums[name] = (before[0] + outputs, before[1] + inputs)
