"""Made-up inputs: random ones, moved to where the model's normalizations saw their training data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adaptkit.modes import evaluating
from adaptkit.pruning.layers import first_input

_RATE = 0.1


def synthetic_inputs(
    model: nn.Module, shape: tuple[int, ...], samples: int, steps: int, seed: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make inputs of which nothing but the model is known: no image is read.

    Drawn from N(0, 1), then moved by `steps` of Adam so that the mean and the deviation of what goes into every batch
    normalization come close to the ones it holds (Cai et al. 2020, "ZeroQ: a novel zero shot quantization framework",
    section 3.2). A model without batch normalization gets the random inputs.

    Args:
        model: Takes one tensor.
        shape: Of one sample.
        samples: How many.
        steps: Of Adam; none leaves random inputs.
        seed: Source of the random numbers.
        dtype: What the model computes in.

    Returns:
        samples × shape.
    """
    x = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms or steps == 0:
        return x
    x.requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=_RATE)
    with evaluating(model), torch.enable_grad(), _distances(norms) as distances:
        for _ in range(steps):
            distances.clear()
            model(x)
            (gradient,) = torch.autograd.grad(torch.stack(distances).mean(), [x])
            x.grad = gradient
            optimizer.step()
    return x.detach()


@contextmanager
def _distances(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[list[Tensor]]:
    """Collect how far the inputs of every normalization are from its statistics, in its own deviations."""
    found: list[Tensor] = []

    def measure(norm: nn.modules.batchnorm._BatchNorm, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        x = first_input(args, kwargs)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        deviation = (norm.running_var + norm.eps).sqrt()
        mean = (x.mean(dims) - norm.running_mean) / deviation
        spread = (x.var(dims, unbiased=False) + norm.eps).sqrt() / deviation - 1
        found.append(mean.square().mean() + spread.square().mean())

    handles = [norm.register_forward_pre_hook(measure, with_kwargs=True) for norm in norms]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
