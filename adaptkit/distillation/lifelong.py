"""Learning without forgetting (Li and Hoiem 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from adaptkit.distillation.base import Distillation
from adaptkit.errors import DataError, ModelError
from adaptkit.technique import Context

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn

    from adaptkit.distillation.tasks import TaskAccuracies
    from adaptkit.training.losses import StepLoss


class LifelongDistillation(Distillation):
    """Teach the model a new task, and keep the old one without a sample of it.

    Minimises CE over the new outputs plus λ KL(teacher ‖ student) over the old outputs at temperature T, both on
    samples of the new task alone: what the teacher, the model before any step, says about them stands for the old task
    (Li and Hoiem 2016, "Learning without forgetting", section 3). The classes of the old task have the first numbers;
    training samples of them are left out. The report gives the accuracy of both tasks before and after, each among its
    own classes, on the validation data.

    Example:
        >>> LifelongDistillation(new_classes=5).temperature
        2.0
    """

    name: ClassVar[str] = "distill.lifelong"
    of_classes: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"train", "validation", "teacher"})

    old_classes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Outputs of the old task, the first ones; all that the model has where not given."
    )
    new_classes: Annotated[int, Field(ge=0)] = Field(
        0, description="Outputs to add for the new task; none where the model has them already."
    )
    temperature: Annotated[float, Field(gt=0)] = Field(2.0, description="T: how much the old outputs are softened.")
    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="λ: weight of the old task.")

    @model_validator(mode="after")
    def _two_tasks(self) -> Self:
        if self.old_classes is None and self.new_classes == 0:
            raise ValueError("no output is left for the new task: give old_classes, new_classes or both")
        return self

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place, and note how good it is at both tasks.

        Raises:
            ModelError: There is no teacher, it does not know the old task, or no output is left for the new one.
            DataError: There is no training or validation data, or no training sample of the new task.
        """
        from adaptkit.distillation.head import grow_head
        from adaptkit.distillation.tasks import of_new_task, task_accuracies

        if context.train is None or context.validation is None:
            raise DataError(f"{self.name} needs training and validation data: give Context(train=..., validation=...)")
        if self.new_classes:
            grow_head(model, self._inputs(model, context), self.new_classes, context.seed)
        old = self._old_classes(model, context)
        train = of_new_task(context.train, old, context.seed)
        before = task_accuracies(model, context.validation, old)
        model = super().apply(model, context.replace(train=train))
        context.notes.append(_both(before, task_accuracies(model, context.validation, old)))
        return model

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the old outputs with the teacher's, the new ones with the targets."""
        import torch

        from adaptkit.distillation.head import count_outputs
        from adaptkit.distillation.losses import lifelong_loss
        from adaptkit.distillation.teachers import answers
        from adaptkit.metrics.task import first_output

        old = self._old_classes(student, context)
        known = count_outputs(teacher, self._inputs(student, context))
        if known < old:
            raise ModelError(f"the teacher has {known} outputs, the old task {old} classes (old_classes)")
        settings = old, self.temperature, self.weight, self.fit.label_smoothing

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            wanted = answers(teacher, x)
            output = first_output(model(x))
            # What counts as right is the new task's: a class of the old one is no answer.
            among_new = output.index_fill(1, torch.arange(old, device=output.device), -float("inf"))
            return lifelong_loss(output, wanted, y, *settings), among_new

        yield student, loss

    def _old_classes(self, model: nn.Module, context: Context) -> int:
        from adaptkit.distillation.head import count_outputs

        outputs = count_outputs(model, self._inputs(model, context))
        old = outputs - self.new_classes if self.old_classes is None else self.old_classes
        if old >= outputs:
            raise ModelError(
                f"{self.name}: {type(model).__name__} has {outputs} outputs, the old task {old} classes (old_classes); "
                "no output is left for the new task: give new_classes"
            )
        return old

    def _inputs(self, model: nn.Module, context: Context) -> tuple[Tensor, ...]:
        from adaptkit.metrics.task import device_of

        return tuple(x.to(device_of(model)) for x in context.example_inputs)


def _both(before: TaskAccuracies, after: TaskAccuracies) -> str:
    tasks = (("old", before.old, after.old), ("new", before.new, after.new))
    figures = [
        f"{name} task: no sample in the validation data"
        if was is None or now is None
        else f"{name} task: accuracy {100 * was:.2f} % before, {100 * now:.2f} % after"
        for name, was, now in tasks
    ]
    return f"On the validation data, each task among its own classes: {'; '.join(figures)}."
