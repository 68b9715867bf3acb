"""What every kind of distillation shares: a teacher, a fit, and the softened outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.errors import DataError, ModelError
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context, Technique
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class Distillation(Technique):
    """Train the model with the help of a teacher; a subclass says what is learnt from it, in `objective`."""

    needs: ClassVar[frozenset[str]] = frozenset({"train", "teacher"})

    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")
    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="T: how much both outputs are softened.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="Weight of the teacher against the targets.")
    teacher: ModelSpec | None = Field(None, description="Another teacher than the model before any step.")
    fit: FitSettings = FitSettings()

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place.

        Raises:
            ModelError: There is no teacher, or it does not fit the student.
            DataError: There is no training data.
        """
        from adaptkit.training.checkpoint import state_sha256
        from adaptkit.training.fit import fit

        if context.train is None:
            raise DataError(f"{self.name} needs training data: give Context(train=...)")
        teacher = self._teacher(model, context).eval()
        with self.objective(model, teacher, context) as (trained, loss):
            result = fit(
                trained,
                context.train,
                epochs=self.epochs,
                settings=self.fit,
                loss=loss,
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

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Give what is trained (the student, or a module that holds it and helpers) and what it minimises.

        What was attached to student and teacher is gone when the context ends.
        """
        raise TypeError(f"{type(self).__name__} defines no objective()")
        yield

    def soft_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Weigh the teacher's outputs against the targets, as `losses.hinton_loss` says.

        Raises:
            ModelError: The two outputs have other shapes.
        """
        from adaptkit.distillation.losses import hinton_loss

        if output.shape != wanted.shape:
            raise ModelError(
                f"the student's output has shape {tuple(output.shape)}, the teacher's {tuple(wanted.shape)}; "
                "both must have the same classes"
            )
        return hinton_loss(output, wanted, target, self.temperature, self.alpha, self.fit.label_smoothing)

    def _teacher(self, model: nn.Module, context: Context) -> nn.Module:
        from adaptkit.loading.models import load_model
        from adaptkit.metrics.task import device_of

        teacher = context.teacher if self.teacher is None else load_model(self.teacher)
        if teacher is None:
            raise ModelError(f"{self.name} has no teacher: give Context(teacher=...), or name one in the step")
        if teacher is model:
            raise ModelError(f"{self.name}: teacher and student are the same object; give a copy as the teacher")
        return teacher.to(device_of(model))
