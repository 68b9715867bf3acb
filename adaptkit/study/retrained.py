"""Networks trained anew: what a model's own training would have to tell, and nobody kept."""

from __future__ import annotations

import copy

import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.loading.saved import float_model


def fresh(network: nn.Module, seed: int) -> nn.Module:
    """Copy a network and draw all its weights anew, as its layers draw them when they are made.

    Args:
        network: Stays as it is; of a quantized one the float network inside is taken.
        seed: Of the draw.

    Raises:
        ModelError: It has parameters that no layer draws by itself.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> one, same, other = (fresh(layer, seed).weight for seed in (0, 0, 1))
        >>> torch.equal(one, same), torch.equal(one, other)
        (True, False)
    """
    found = copy.deepcopy(float_model(network)).requires_grad_()
    left = dict(found.named_parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in found.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                for own, _ in module.named_parameters(prefix=name):
                    left.pop(own, None)
    if left:
        raise ModelError(
            f"{type(found).__name__} cannot be trained anew: no layer draws {', '.join([*left][:3])} by itself; give "
            "the module that holds it a reset_parameters()"
        )
    return found
