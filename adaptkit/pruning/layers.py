"""What the engine has to know of single layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def output_dim(module: nn.Module) -> int:
    """Return which dimension of a layer's weight holds its outputs: 1 of transposed convolutions and embeddings.

    Example:
        >>> [output_dim(layer) for layer in (nn.Linear(2, 3), nn.ConvTranspose2d(2, 3, 1), nn.Embedding(5, 3))]
        [0, 1, 1]
    """
    return int(isinstance(module, nn.Embedding) or bool(getattr(module, "transposed", False)))


def output_dims(model: nn.Module) -> dict[str, int]:
    """Return the output dimension of the weight of every layer where that is not 0, by the name of the weight."""
    found = {path: output_dim(module) for path, module in model.named_modules(remove_duplicate=False)}
    return {f"{path}.weight" if path else "weight": dim for path, dim in found.items() if dim}


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the first input of a call, whether it was given by place or by keyword."""
    return next(iter((*args, *kwargs.values())))
