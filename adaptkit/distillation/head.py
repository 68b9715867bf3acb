"""The last layer of a model: how many outputs it has, and more of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptkit.distillation.taps import dry_run
from adaptkit.errors import ModelError
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.surgery import replace_module


def count_outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """How many outputs a model has for a sample."""
    with evaluating(model), torch.no_grad():
        return first_output(model(*inputs)).shape[1]


def grow_head(model: nn.Module, inputs: tuple[Tensor, ...], count: int, seed: int) -> None:
    """Give a model's last layer further outputs after its own, in place; the present ones stay what they are.

    Args:
        model: Ends in a linear layer or a convolution, activations and pooling aside.
        inputs: Of one call.
        count: How many outputs to add.
        seed: Source of their weights.

    Raises:
        ModelError: The model's outputs do not come out of such a layer; the model is as it was.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3))
        >>> grow_head(model, (torch.zeros(1, 4),), count=2, seed=0)
        >>> model
        Sequential(
          (0): Linear(in_features=4, out_features=5, bias=True)
        )
    """
    outputs = count_outputs(model, inputs)
    name = next((n for n in reversed(dry_run(model, inputs)) if _gives(model.get_submodule(n), outputs)), None)
    if name is not None:
        own = model.get_submodule(name)
        replace_module(model, name, _grown(own, count, seed))
        if _has_outputs(model, inputs, outputs + count):
            return
        replace_module(model, name, own)
    raise ModelError(
        f"the {outputs} outputs of {type(model).__name__} do not come out of a linear layer or a convolution: make the "
        "model with the classes of both tasks, and give old_classes"
    )


def _gives(layer: nn.Module, outputs: int) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels == outputs and layer.groups == 1
    return isinstance(layer, nn.Linear) and layer.out_features == outputs


def _has_outputs(model: nn.Module, inputs: tuple[Tensor, ...], wanted: int) -> bool:
    try:
        return count_outputs(model, inputs) == wanted
    except RuntimeError:  # something after the layer does not take what it now returns
        return False


def _grown(layer: nn.Module, count: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(layer, nn.Linear):
            wide: nn.Module = nn.Linear(layer.in_features, layer.out_features + count, layer.bias is not None)
        else:
            assert isinstance(layer, nn.Conv2d)
            wide = nn.Conv2d(
                layer.in_channels,
                layer.out_channels + count,
                layer.kernel_size,  # type: ignore[arg-type]  # a tuple of as many as there are dimensions
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                layer.dilation,  # type: ignore[arg-type]
                bias=layer.bias is not None,
                padding_mode=layer.padding_mode,
            )
    wide.to(layer.weight)
    with torch.no_grad():
        for new, old in zip(wide.parameters(), layer.parameters(), strict=True):
            new[: len(old)] = old
    return wide
