"""The variables of ADMM beside a model, and what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.pruning.projections import ConstraintSet
from adaptkit.training.losses import StepLoss


class Admm(nn.Module):
    """A model, and for each of its constrained weights W the copy Z in its set and the scaled dual variable U.

    W minimises the loss plus Σ ρ/2 ‖W − Z + U‖²; then Z ← Π(W + U) and U ← U + W − Z (Boyd et al. 2011, "Distributed
    optimization and statistical learning via ADMM", section 3.1.1; Zhang et al. 2018, "A systematic DNN weight pruning
    framework using ADMM", section 3). All of it is state, so that a killed fit goes on.

    Args:
        model: Trained.
        sets: The set of each weight, by name.
        rho: The first ρ.
        growth: Factor of ρ from round to round.
        rounds: How many there will be.
    """

    done: Tensor
    _millionths: Tensor

    def __init__(
        self, model: nn.Module, sets: Mapping[str, ConstraintSet], rho: float, growth: float, rounds: int
    ) -> None:
        super().__init__()
        self.model = model
        self.sets = dict(sets)
        self.first_rho, self.growth = rho, growth
        # Whole numbers, which an average of the model's state takes over as they are.
        self.register_buffer("done", torch.tensor(0))
        self.register_buffer("_millionths", torch.zeros(rounds, 2, dtype=torch.int64))
        for number, (name, constraint) in enumerate(self.sets.items()):
            weight = model.get_parameter(name).detach()
            self.register_buffer(f"z_{number}", constraint.project(weight))
            self.register_buffer(f"u_{number}", torch.zeros_like(weight))

    def forward(self, *inputs: Tensor) -> Any:
        """Call the model."""
        return self.model(*inputs)

    @property
    def rho(self) -> float:
        """Return the ρ of this round."""
        return float(self.first_rho * self.growth ** int(self.done))

    def residuals(self) -> Tensor:
        """Return the residuals of the rounds done: rounds × (‖W − Z‖, ρ ‖Z − Z_before‖), both over ‖W‖."""
        return self._millionths[: int(self.done)] / 1e6

    def penalty(self) -> Tensor:
        """Return Σ ρ/2 ‖W − Z + U‖²."""
        terms = [(weight - z + u).square().sum() for weight, z, u, _ in self._variables()]
        return 0.5 * self.rho * torch.stack(terms).sum()

    @torch.no_grad()
    def renew(self) -> None:
        """Update Z, U and ρ, and remember the residuals."""
        primal, dual, size = 0.0, 0.0, 0.0
        for weight, z, u, constraint in self._variables():
            before = z.clone()
            z.copy_(constraint.project(weight + u))
            u.add_(weight - z).div_(self.growth)  # scaled by 1 / ρ, so it follows ρ
            primal += float((weight - z).double().square().sum())
            dual += float((z - before).double().square().sum())
            size += float(weight.double().square().sum())
        found = torch.tensor([primal**0.5, self.rho * dual**0.5]) / max(size, 1e-30) ** 0.5
        self._millionths[int(self.done)] = (found * 1e6).round().long()
        self.done += 1

    def masks(self) -> dict[str, Tensor]:
        """Say which entries of every weight its projection keeps."""
        return {name: constraint.mask(self.model.get_parameter(name)) for name, constraint in self.sets.items()}

    def _variables(self) -> list[tuple[nn.Parameter, Tensor, Tensor, ConstraintSet]]:
        return [
            (self.model.get_parameter(name), self.get_buffer(f"z_{number}"), self.get_buffer(f"u_{number}"), constraint)
            for number, (name, constraint) in enumerate(self.sets.items())
        ]


def penalized(criterion: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]) -> StepLoss:
    """Add the penalty of an `Admm` to a training loss.

    Args:
        criterion: The loss without it.
    """

    def step_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(model, Admm)
        loss, output = criterion(model, x, y)
        return loss + model.penalty(), output

    return step_loss
