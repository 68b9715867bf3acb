"""Distillation across views: the teacher sees another side of a sample than the student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from adaptkit.distillation.base import SoftDistillation
from adaptkit.specs import Section
from adaptkit.technique import Context

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class View(Section):
    """What a network sees of a sample: some of its channels, its image at another size, or both."""

    channels: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = Field(
        None, description="Channels, counted from 0; all where none are named."
    )
    size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Height and width in pixels; as they are where not given."
    )


class CrossModalDistillation(SoftDistillation):
    """Train the model on one view of the samples by a teacher that sees another view of the same samples.

    Minimises α T² KL(teacher(view_t(x)) ‖ student(view_s(x))) + (1 - α) CE: depth taught by colour, one microphone by
    four, a small image by a large one (Gupta, Hoffman and Malik 2016, "Cross modal distillation for supervision
    transfer", in the form of Lopez-Paz et al. 2016, "Unifying distillation and privileged information", section 4, of
    softened outputs). With `alpha: 1` no target is looked at, so samples without labels do.

    The student is afterwards to be given its own view. In a recipe the data must fit the model, so there a student of
    some channels picks them itself, and `student_view` is for sizes.

    Example:
        >>> CrossModalDistillation(teacher_view=View(channels=(0, 1, 2)), student_view=View(channels=(3,))).alpha
        0.9
    """

    name: ClassVar[str] = "distill.cross_modal"

    student_view: View = Field(View(), description="What the student sees; whole samples where not given.")
    teacher_view: View = Field(View(), description="What the teacher sees; whole samples where not given.")

    @model_validator(mode="after")
    def _two_views(self) -> Self:
        if self.student_view == self.teacher_view:
            raise ValueError("teacher and student see the same: give student_view, teacher_view or both")
        return self

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the outputs, each for its own view."""
        from adaptkit.distillation.teachers import answers
        from adaptkit.distillation.views import view
        from adaptkit.metrics.task import first_output

        del context
        ours, theirs = self.student_view, self.teacher_view

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            wanted = answers(teacher, view(x, theirs.channels, theirs.size))
            output = first_output(model(view(x, ours.channels, ours.size)))
            return self.outputs_loss(output, wanted, y), output

        yield student, loss
