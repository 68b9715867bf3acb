"""What a model answers, and what a layer inside it gives, over many inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, ModelError
from adaptkit.metrics.task import device_of, first_output
from adaptkit.modes import evaluating

_BATCH = 256


def outputs_of(model: nn.Module, x: Tensor) -> Tensor:
    """Run a model in eval mode, which is undone afterwards, batch by batch.

    Args:
        model: Gives a tensor, or a tuple that begins with one.
        x: All inputs.

    Returns:
        On the CPU, one row an input.

    Raises:
        DataError: There is no input.

    Example:
        >>> outputs_of(nn.Identity(), torch.ones(300, 2)).shape
        torch.Size([300, 2])
    """
    if len(x) == 0:
        raise DataError("x: there are no samples; give at least one")
    device = device_of(model)
    with evaluating(model), torch.inference_mode():
        parts = [first_output(model(part.to(device))).cpu() for part in torch.split(x, _BATCH)]
    return torch.cat(parts).clone()


def activations_at(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Record what a layer gives: what a network that is cut behind it sends.

    Args:
        model: Run in eval mode, which is undone afterwards.
        layer: As in `model.named_modules()`; run once a forward pass.
        x: All inputs.

    Returns:
        On the CPU, one row an input.

    Raises:
        ModelError: There is no such layer, or it runs not once.
        DataError: There is no input.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
        >>> activations_at(model, "1", torch.ones(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        names = ", ".join(name for name in modules if name)
        raise ModelError(f"{type(model).__name__} has no layer {layer!r}; it has {names}")
    seen: list[Tensor] = []
    handle = modules[layer].register_forward_hook(lambda _m, _x, output: seen.append(first_output(output).cpu()))
    try:
        outputs_of(model, x)
    finally:
        handle.remove()
    if sum(map(len, seen)) != len(x):
        calls = len(seen) / -(-len(x) // _BATCH)
        raise ModelError(f"the layer {layer!r} ran {calls:g} times a forward pass; choose one that runs once")
    return torch.cat(seen).clone()
