"""Statistics of batch normalizations after surgery."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn

from adaptkit.loading.batches import Batch, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.technique import Context
from adaptkit.training.losses import are_numbers, target_loss

_BATCHES = 16
_FEWEST = 64
"""Samples below which an estimate is worth less than what a model was trained with."""

Loss = Callable[[Tensor, Tensor], Tensor]


def renew_statistics(model: nn.Module, context: Context) -> None:
    """Measure means and variances anew on calibration data, and keep them where they lower the loss on it.

    What is taken out of a layer shifts what the layers behind it are given, and normalizations go on subtracting the
    old mean. The new statistics are the averages over the batches, all normalizations working on those of the batch
    (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3). Labels only judge. Nothing happens without
    calibration data of at least 64 samples, to a model of several inputs, or where there is no loss to judge by; a note
    says what was done.

    Args:
        model: Changed in place.
        context: Calibration data, the loss (`losses.target_loss` where None), and the notes.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
        >>> x = torch.linspace(9, 11, 256)[:, None]
        >>> model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
        >>> context = Context((x,), calibration=(x, (x[:, 0] < 10).long()))
        >>> renew_statistics(model, context)
        >>> len(context.notes), round(model[1].running_mean[0].item())
        (1, 10)
    """
    found = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in found if norm.running_mean is not None]
    if not norms or context.calibration is None or len(context.example_inputs) > 1:
        return
    batches = list(islice(as_batches(context.calibration), _BATCHES))
    loss = context.loss or (target_loss if all(_are_known(y) for _, y in batches) else None)
    samples = sum(len(y) for _, y in batches)
    if loss is None or samples < _FEWEST:
        return
    before = _mean_loss(model, batches, loss)
    old = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    _measure(model, norms, batches)
    after = _mean_loss(model, batches, loss)
    if after < before:
        context.notes.append(
            f"statistics of {len(norms)} normalizations measured anew on {samples} calibration samples: their loss "
            f"{before:.3f} → {after:.3f}"
        )
        return
    for norm, values in zip(norms, old, strict=True):
        for name, value in values.items():
            norm.get_buffer(name).copy_(value)


def _are_known(y: Tensor) -> bool:
    """Whether targets are class numbers or numbers."""
    return are_numbers(y) or (y.ndim == 1 and not y.is_floating_point())


@torch.no_grad()
def _mean_loss(model: nn.Module, batches: list[Batch], loss: Loss) -> float:
    with evaluating(model):
        total = sum(float(loss(first_output(model(x)), y)) * len(y) for x, y in batches)
    return total / sum(len(y) for _, y in batches)


@torch.no_grad()
def _measure(model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm], batches: list[Batch]) -> None:
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluating(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the average of all batches
                norm.training = True
            for x, _ in batches:
                if len(x) > 1:
                    model(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
