"""What importance needs of data: gradients, curvature, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batch, BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.pruning.importance import Tensors
from adaptkit.pruning.layers import first_input

Criterion = Callable[[Any, Tensor], Tensor]

_BATCHES = 16
_CHANNEL_DIM: dict[type[nn.Module], int] = {nn.Linear: -1, nn.modules.conv._ConvNd: 1}


def taylor_products(model: nn.Module, data: BatchSource, loss: Criterion, batches: int = _BATCHES) -> list[Tensors]:
    """Run batches forward and back in evaluation mode; return w ∂L/∂w of every parameter for each.

    Args:
        model: Left as it was.
        data: Inputs and targets.
        loss: Maps (output, target) to a scalar.
        batches: How many batches are used at most.
    """
    found: list[Tensors] = []
    with evaluating(model), torch.enable_grad(), _differentiable(model) as named:
        for x, y in _first(data, batches):
            value = loss(first_output(model(x)), y)
            gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            pairs = zip(named.items(), gradients, strict=True)
            found.append({name: (p * g).detach() for (name, p), g in pairs if g is not None})
    return found


def hessian_diagonal(
    model: nn.Module, data: BatchSource, loss: Criterion, seed: int, draws: int = 4, batches: int = _BATCHES
) -> dict[str, Tensor]:
    """Estimate ∂²L/∂w² of every element: E[z ⊙ H z] over random signs z (Bekas et al. 2007, section 2).

    Args:
        model: Left as it was; evaluation mode.
        data: Inputs and targets.
        loss: Maps (output, target) to a scalar.
        seed: Of the signs.
        draws: Signs drawn for every batch; the error falls with their square root.
        batches: How many batches are used at most.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Tensor] = {}
    count = 0
    # the fused attention kernels have no second derivative
    with evaluating(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _differentiable(model) as named:
        for x, y in _first(data, batches):
            value = loss(first_output(model(x)), y)
            gradients = torch.autograd.grad(value, list(named.values()), create_graph=True, allow_unused=True)
            used = {name: (p, g) for (name, p), g in zip(named.items(), gradients, strict=True) if g is not None}
            for _ in range(draws):
                for name, product in _sign_products(used, generator).items():
                    sums[name] = sums.get(name, 0) + product
                count += 1
    return {name: total / count for name, total in sums.items()}


def activation_means(model: nn.Module, data: BatchSource, batches: int = _BATCHES) -> dict[str, Tensor]:
    """Average |x| over batch and positions for every channel that a convolution or linear layer is given.

    Args:
        model: Left as it was; evaluation mode.
        data: Inputs and targets.
        batches: How many batches are used at most.

    Returns:
        A vector for the weight of every layer by name; grouped and transposed convolutions are left out.
    """
    sums: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    with evaluating(model), torch.no_grad(), _watching(model, sums, calls):
        for x, _ in _first(data, batches):
            model(x)
    return {name: total / calls[name] for name, total in sums.items()}


def _first(data: BatchSource, batches: int) -> Iterator[Batch]:
    empty = True
    for x, y in islice(as_batches(data), batches):
        if len(x) > 0:
            empty = False
            yield x, y
    if empty:
        raise DataError("the calibration data is empty: importance needs at least one batch")


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Give gradients to all parameters, frozen ones too, which matter as much; they are frozen again afterwards."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    were = {name: parameter.requires_grad for name, parameter in named.items()}
    try:
        for parameter in named.values():
            parameter.requires_grad_(True)
        yield named
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(were[name])


def _sign_products(used: Mapping[str, tuple[Tensor, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
    """Return z ⊙ H z for one draw of signs z."""
    signs = [torch.randint(2, p.shape, generator=generator).to(p) * 2 - 1 for p, _ in used.values()]
    bent = [(g, z) for (_, g), z in zip(used.values(), signs, strict=True) if g.requires_grad]
    products = torch.autograd.grad(
        [g for g, _ in bent],
        [p for p, _ in used.values()],
        [z for _, z in bent],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return {name: (z * h).detach() for name, z, h in zip(used, signs, products, strict=True)}


@contextmanager
def _watching(model: nn.Module, sums: dict[str, Tensor], calls: dict[str, int]) -> Iterator[None]:
    def look(name: str, dim: int, x: Tensor) -> None:
        mean = x.abs().movedim(dim, -1).flatten(0, -2).mean(0)
        sums[name] = sums.get(name, torch.zeros_like(mean)) + mean
        calls[name] = calls.get(name, 0) + 1

    handles = []
    for path, module in model.named_modules():
        for kind, dim in _CHANNEL_DIM.items():
            grouped = getattr(module, "groups", 1) > 1 or getattr(module, "transposed", False)
            if isinstance(module, kind) and not grouped:
                name = f"{path}.weight" if path else "weight"
                handles.append(
                    module.register_forward_pre_hook(
                        lambda _, args, kwargs, name=name, dim=dim: look(name, dim, first_input(args, kwargs)),
                        with_kwargs=True,
                    )
                )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
