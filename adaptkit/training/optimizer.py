"""The optimizers of `fit`."""

from __future__ import annotations

import torch
from torch import nn

from adaptkit.errors import AdaptkitError
from adaptkit.training.settings import FitSettings


def build_optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """Make the optimizer; biases and the parameters of normalizations are not decayed.

    Args:
        model: Its parameters that need a gradient are trained.
        settings: Which optimizer, and its numbers.

    Raises:
        AdaptkitError: No parameter needs a gradient.
    """
    free_ids = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim <= 1 or name == "bias" or isinstance(module, nn.LayerNorm | nn.RMSNorm)
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if id(parameter) not in free_ids]
    free = [parameter for parameter in trained if id(parameter) in free_ids]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, settings.weight_decay), (free, 0.0))
        if params
    ]
    if not groups:
        raise AdaptkitError("the model has no parameter that needs a gradient: there is nothing to train")
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0
    )
