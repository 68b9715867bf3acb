"""What every kind of distillation shares: a teacher and a fit; and what those share that soften the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.errors import DataError
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context, Form, Technique
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class Distillation(Technique):
    """Train the model with the help of a teacher.

    A subclass says how outputs are compared, in `outputs_loss`; one that compares more than that, in `objective`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"train", "teacher"})
    refuses: ClassVar[Mapping[Form, str]] = {
        "quantized": "training would move the weights away from the scales that their integers were given"
    }

    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")
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
        teacher = self.load_teacher(model, context).eval()
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
                after_step=lambda step, total: self.after_step(trained, step, total),
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

        What was attached to student and teacher is gone when the context ends. Here the outputs alone are compared.
        """
        from adaptkit.distillation.teachers import answers
        from adaptkit.metrics.task import first_output

        del context

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            wanted = answers(teacher, x)
            output = first_output(model(x))
            return self.outputs_loss(output, wanted, y), output

        yield student, loss

    def after_step(self, trained: nn.Module, step: int, total: int) -> None:
        """Change what is trained after each step; nothing here.

        Args:
            trained: From `objective`; what is to be remembered must be in its state.
            step: Steps done.
            total: Steps in all.
        """

    def outputs_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Compare the student's outputs with the teacher's and with the targets.

        Args:
            output: Of the student, N × classes.
            wanted: Of the teacher, N × classes.
            target: Class numbers.

        Raises:
            ModelError: The two outputs have other shapes.
        """
        raise TypeError(f"{type(self).__name__} defines neither outputs_loss() nor objective()")

    def targets_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Give the loss of the student's outputs that suits the targets, with the label smoothing of `fit`."""
        from adaptkit.training.losses import target_loss

        return target_loss(output, target, self.fit.label_smoothing)

    def load_teacher(self, model: nn.Module, context: Context) -> nn.Module:
        """Give the teacher, on the student's device.

        Raises:
            ModelError: There is none, or it is the student.
        """
        from adaptkit.distillation.teachers import find_teacher

        return find_teacher(self.name, self.teacher, model, context)


class SoftDistillation(Distillation):
    """Train the model on the softened outputs of a teacher and on the targets, as `losses.soft_loss` weighs them."""

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="T: how much both outputs are softened.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="Weight of the teacher against the targets.")

    def outputs_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Weigh the teacher's outputs against the targets, as `losses.soft_loss` says."""
        from adaptkit.distillation.losses import soft_loss
        from adaptkit.distillation.teachers import require_same_classes

        require_same_classes(output, wanted)
        return soft_loss(output, wanted, target, self.temperature, self.alpha, self.fit.label_smoothing)
