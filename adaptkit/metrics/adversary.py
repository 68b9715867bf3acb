"""The search for the worst input near a given one, by projected gradient ascent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.loading.batches import mixed_seed
from adaptkit.metrics.task import device_of, first_output
from adaptkit.modes import evaluating

_BATCH = 128


@dataclass(frozen=True)
class Attack:
    """What may be changed, and how hard the search is.

    Args:
        radius: Of the ball around each input, in the unit of the inputs.
        norm: "linf", the largest change of a value, or "l2", the root of the sum of squares over an input.
        steps: Of gradient ascent from each start.
        restarts: Random starts; the best is kept.
        step_size: As a share of the radius.
        bounds: Smallest and largest value of an input, which changed ones keep too; None for no bounds. Put the
            normalization into the model, so that inputs are pixels from 0 to 1.
        seed: Source of the starts.
    """

    radius: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 20
    restarts: int = 2
    step_size: float = 0.125
    bounds: tuple[float, float] | None = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no attack."""
        if self.norm not in ("linf", "l2"):
            raise AdaptkitError(f"norm is linf or l2; got {self.norm!r}")
        if not (0 < self.radius < float("inf") and self.step_size > 0 and self.steps >= 1 and self.restarts >= 1):
            raise AdaptkitError(
                "an attack has a radius and a step_size above 0, and at least one step and one start; got "
                f"radius={self.radius}, step_size={self.step_size}, steps={self.steps}, restarts={self.restarts}"
            )


def most_harm(
    model: nn.Module, x: Tensor, harm: Callable[[Tensor, Tensor], Tensor], attack: Attack
) -> tuple[Tensor, Tensor]:
    """Search the ball around each input for the most harm (PGD; Madry et al. 2018, section 2.1).

    δ ← projection of δ + step · direction of ∇ harm, from random starts in the ball: the gradient may be zero at δ = 0.

    Args:
        model: Run in eval mode, which is undone afterwards. Its parameters get no gradient.
        x: n inputs.
        harm: Maps outputs and the numbers of their inputs (int64) to one value an input; more is worse.
        attack: The ball and the effort.

    Returns:
        The n most harmful inputs found, and their harm: never more than there is.

    Raises:
        DataError: There is no input, it has NaN, or is out of bounds.
        ModelError: No gradient comes back to the input, or the harm is NaN.

    Example:
        >>> worst, harm = most_harm(nn.Identity(), torch.full((1, 2), 0.5), lambda y, _: y.sum(1), Attack(0.25))
        >>> worst.tolist(), harm.tolist()
        ([[0.75, 0.75]], [1.5])
    """
    _check_inputs(x, attack)
    device = device_of(model)
    inputs, harms = [], []
    with evaluating(model), torch.enable_grad():
        for number, part in enumerate(torch.split(torch.arange(len(x)), _BATCH)):
            here = x[part].to(device)
            best, most = here.clone(), torch.full((len(part),), -torch.inf, device=device)
            for start in range(attack.restarts):
                rng = np.random.default_rng(mixed_seed(attack.seed, number, start))
                _ascend(model, here, best, most, partial(_of, harm, part.to(device)), attack, rng)
            inputs.append(best.cpu())
            harms.append(most.cpu())
    return torch.cat(inputs), torch.cat(harms)


def _of(harm: Callable[[Tensor, Tensor], Tensor], samples: Tensor, output: Tensor) -> Tensor:
    return harm(output, samples)


def _ascend(
    model: nn.Module,
    x: Tensor,
    best: Tensor,
    most: Tensor,
    harm: Callable[[Tensor], Tensor],
    attack: Attack,
    rng: np.random.Generator,
) -> None:
    """Climb from a random start; what is worse than the most harm so far is written over it."""
    change = _projected(torch.from_numpy(rng.uniform(-1, 1, tuple(x.shape))).to(x) * attack.radius, x, attack)
    for step in range(attack.steps + 1):
        moved = (x + change).requires_grad_()
        found = harm(first_output(model(moved)))
        if found.isnan().any():
            raise ModelError("the model gives NaN near its inputs; find the layer that does, or lower the radius")
        worse = found.detach() > most
        best[worse], most[worse] = moved.detach()[worse], found.detach()[worse].to(most)
        if step == attack.steps:
            return
        gradient = _gradient(found.sum(), moved)
        change = _projected(change + attack.step_size * attack.radius * _direction(gradient, attack.norm), x, attack)


def _gradient(harm: Tensor, moved: Tensor) -> Tensor:
    try:
        found = torch.autograd.grad(harm, moved, allow_unused=True)[0] if harm.requires_grad else None
    except RuntimeError as error:
        raise ModelError(f"no gradient comes back to the input: {str(error).splitlines()[0]}") from error
    if found is None:
        raise ModelError("no gradient comes back to the input; attack the model before it was exported or rounded")
    return found


def _direction(gradient: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient).clamp(min=1e-12)


def _projected(change: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """Bring a change back into the ball, then into the bounds, which lie around x and so keep it in the ball."""
    if attack.norm == "linf":
        change = change.clamp(-attack.radius, attack.radius)
    else:
        change = change * (attack.radius / _length(change).clamp(min=1e-12)).clamp(max=1)
    return change if attack.bounds is None else (x + change).clamp(*attack.bounds) - x


def _length(values: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return torch.reshape(lengths, (-1, *[1] * (values.ndim - 1)))


def _check_inputs(x: Tensor, attack: Attack) -> None:
    if x.ndim < 2 or len(x) == 0 or not x.is_floating_point():
        raise DataError(f"x: give at least one input of floating point, n × …; got {x.dtype} of {tuple(x.shape)}")
    if not x.isfinite().all():
        raise DataError("x: inputs hold NaN or infinities; leave these samples out")
    low, high = float(x.min()), float(x.max())
    if attack.bounds is not None and (low < attack.bounds[0] or high > attack.bounds[1]):
        raise DataError(
            f"x: inputs are from {low:.3g} to {high:.3g}, bounds from {attack.bounds[0]:g} to {attack.bounds[1]:g}; "
            "give pixels and put the normalization into the model, or give the bounds of the inputs (None for none)"
        )
