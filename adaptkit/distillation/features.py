"""Distillation of what a teacher computes inside (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.distillation.base import SoftDistillation
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class FeatureDistillation(SoftDistillation):
    """Train the model to compute inside what its teacher computes, besides the softened outputs and the targets.

    Minimises the loss of `distill.logits` plus β (1 − step / steps) / P · Σ ‖r(s) − t‖² / ‖t‖² over P pairs of layers,
    where s and t are what a layer of the student and one of the teacher return and r is a regressor, 1 × 1, that is
    learnt beside the student where they have different channels, and thrown away in the end. So the hints of Romero et
    al. 2015 ("FitNets: hints for thin deep nets", section 2.2) come first and the outputs have the last word, in one
    training instead of two: what a small student cannot copy would otherwise stand in the way of its answers.

    A student that was cut out of its teacher is compared block by block: each block that stayed is to return what the
    last of the removed ones after it returned. It comes back much faster than by outputs alone.

    Example:
        >>> FeatureDistillation(layers={"layer1": "layer1"}, weight=3).weight
        3.0
    """

    name: ClassVar[str] = "distill.features"

    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="β: weight of the features at first; it falls to 0.")
    layers: dict[str, str] | None = Field(
        None,
        description="Layer of the student to layer of the teacher. Where none are named: the blocks of the same name, "
        "or else the last layers at each resolution.",
    )

    def check(self, model: nn.Module) -> list[str]:
        """List the named layers that the model does not have."""
        from adaptkit.distillation.taps import unknown_layers

        unknown = unknown_layers(model, self.layers or {})
        return super().check(model) + [f"{self.name}: {problem} (layers)" for problem in unknown]

    def after_step(self, trained: nn.Module, step: int, total: int) -> None:
        """Let the hints fade."""
        from adaptkit.distillation.taps import Taught

        assert isinstance(trained, Taught)
        trained.hint_weight.fill_(1 - step / total)

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the outputs and the paired layers."""
        import torch

        from adaptkit.distillation.losses import hint_loss
        from adaptkit.distillation.taps import Taught, find_pairs, tapped, to_same_resolution
        from adaptkit.metrics.task import device_of, first_output

        device = device_of(student)
        pairs = find_pairs(student, teacher, tuple(x.to(device) for x in context.example_inputs), self.layers)
        trained = Taught(student, pairs, context.seed).to(device)
        context.notes.append(f"Features compared: {', '.join(str(pair) for pair in pairs)}.")
        with (
            tapped(student, [pair.student for pair in pairs]) as ours,
            tapped(teacher, [pair.teacher for pair in pairs]) as theirs,
        ):

            def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
                with torch.no_grad():
                    wanted = first_output(teacher(x))
                output = first_output(model(x))
                hints = [
                    hint_loss(*to_same_resolution(regressor(ours[pair.student]), theirs[pair.teacher]))
                    for pair, regressor in zip(pairs, trained.regressors, strict=True)
                ]
                hint = self.weight * trained.hint_weight * torch.stack(hints).mean()
                return self.outputs_loss(output, wanted, y) + hint, output

            yield trained, loss
