"""What the layers of a model are given on calibration data: the second moments of their inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.factorization.observe import Hook, first_batches, rows, watched
from adaptkit.loading.batches import BatchSource

_RIDGE = 1e-3
LARGEST = 4096
"""Inputs of a layer above which the matrix would cost more than the rest of the work."""


def input_moments(model: nn.Module, names: Iterable[str], data: BatchSource, samples: int) -> dict[str, Tensor]:
    """Return E[x xᵀ] of the inputs of layers, over samples, and over pixels or tokens alike.

    Args:
        model: Run in evaluation mode; left as it was.
        names: Convolutions (of which x is one pixel of all channels) and linear layers.
        data: Inputs, the first of which are used.
        samples: How many.

    Returns:
        For each layer in × in.

    Raises:
        DataError: There is no sample, or an input is not finite.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> input_moments(net, ["0"], (torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.zeros(2)), 2)["0"]
        tensor([[1., 1.],
                [1., 2.]])
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def remember(name: str) -> Hook:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del output
            x = rows(layer, inputs[0]).float()
            sums[name] = sums.get(name, 0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    with watched(model, {name: remember(name) for name in names}), torch.no_grad():
        for x, _ in first_batches(data, samples):
            model(x)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise DataError(f"the input of {name} is not finite on the calibration data: look for broken samples")
    return {name: total / counts[name] for name, total in sums.items()}


def whitening(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return a symmetric square root of a second moment and its inverse.

    A thousandth of the mean is added to the diagonal: inputs that never differ from zero on the samples may elsewhere.

    Args:
        moment: in × in.

    Example:
        >>> root, inverse = whitening(torch.diag(torch.tensor([4.0, 1.0])))
        >>> (root @ inverse).round(decimals=4)
        tensor([[1., 0.],
                [0., 1.]])
    """
    values, vectors = torch.linalg.eigh(moment.double())
    roots = (values.clamp(min=0) + _RIDGE * values.mean().clamp(min=1e-30)).sqrt()
    return ((vectors * roots) @ vectors.T).float(), ((vectors / roots) @ vectors.T).float()
