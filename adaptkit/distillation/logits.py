"""Distillation of a teacher's outputs (Hinton et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.errors import DataError, ModelError
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context, Technique
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class LogitDistillation(Technique):
    """Train the model on the softened outputs of a teacher and on the targets, to win back lost accuracy.

    Minimises α T² KL(teacher ‖ student) + (1 - α) CE, where both softmaxes of the first term are taken at temperature
    T (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2). The teacher is the
    model before any step, unless one is named; it sees the same augmented images as the student.

    Example:
        >>> LogitDistillation(epochs=0.5, temperature=2).temperature
        2.0
    """

    name: ClassVar[str] = "distill.logits"
    needs: ClassVar[frozenset[str]] = frozenset({"train", "teacher"})

    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")
    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="T: how much both outputs are softened.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="Weight of the teacher against the targets.")
    teacher: ModelSpec | None = Field(None, description="Another teacher than the model before any step.")
    fit: FitSettings = FitSettings()

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place.

        Raises:
            ModelError: There is no teacher, or its outputs have another shape than the student's.
            DataError: There is no training data.
        """
        from adaptkit.training.checkpoint import state_sha256
        from adaptkit.training.fit import fit

        if context.train is None:
            raise DataError(f"{self.name} needs training data: give Context(train=...)")
        teacher = self._teacher(model, context)
        result = fit(
            model,
            context.train,
            epochs=self.epochs,
            settings=self.fit,
            loss=_distillation(teacher, self),
            seed=context.seed,
            workspace=context.workspace,
            progress=context.progress,
            tag=f"{self.model_dump_json()} {state_sha256(teacher)}",
        )
        if result.train_accuracy is not None:
            context.notes.append(
                f"Distilled for {self.epochs:g} epochs ({result.steps} steps); accuracy on the training batches of "
                f"the last epoch {100 * result.train_accuracy:.2f} %."
            )
        return model

    def _teacher(self, model: nn.Module, context: Context) -> nn.Module:
        from adaptkit.loading.models import load_model
        from adaptkit.metrics.task import device_of

        teacher = context.teacher if self.teacher is None else load_model(self.teacher)
        if teacher is None:
            raise ModelError(f"{self.name} has no teacher: give Context(teacher=...), or name one in the step")
        if teacher is model:
            raise ModelError(f"{self.name}: teacher and student are the same object; give a copy as the teacher")
        return teacher.to(device_of(model))


def _distillation(teacher: nn.Module, settings: LogitDistillation) -> StepLoss:
    """Make the training loss; the teacher runs in eval mode, without gradients."""
    import torch

    from adaptkit.distillation.losses import hinton_loss
    from adaptkit.metrics.task import first_output

    teacher.eval()

    def step_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = first_output(teacher(x))
        output = first_output(model(x))
        if output.shape != wanted.shape:
            raise ModelError(
                f"the student's output has shape {tuple(output.shape)}, the teacher's {tuple(wanted.shape)}; "
                "both must have the same classes"
            )
        smoothing = settings.fit.label_smoothing
        return hinton_loss(output, wanted, y, settings.temperature, settings.alpha, smoothing), output

    return step_loss
