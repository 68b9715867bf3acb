"""Adversarial distillation: a discriminator on the outputs (Xu, Hsu and Huang 2018)."""

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


class AdversarialDistillation(SoftDistillation):
    """Train the model until a discriminator cannot tell its outputs from its teacher's.

    A discriminator D of three layers reads outputs; it is trained beside the student, by the same optimizer, to say
    whether they are the teacher's and of which class the sample is. The student minimises the loss of `distill.logits`
    plus λ (-log D(student) + CE of the class that D reads in the student's outputs), so the loss that pulls student and
    teacher together is learnt rather than fixed (Xu, Hsu and Huang 2018, "Training shallow and thin networks for
    acceleration via knowledge distillation with conditional adversarial networks"). D is thrown away in the end.

    Example:
        >>> AdversarialDistillation(width=32).width
        32
    """

    name: ClassVar[str] = "distill.adversarial"
    of_classes: ClassVar[bool] = True

    weight: Annotated[float, Field(gt=0)] = Field(0.01, description="λ: weight of the discriminator's verdict.")
    width: Annotated[int, Field(ge=1)] = Field(128, description="Size of the discriminator's two hidden layers.")

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the outputs, and let the discriminator judge them."""
        import torch

        from adaptkit.distillation.discriminator import Contest, Discriminator
        from adaptkit.distillation.teachers import answers
        from adaptkit.metrics.task import device_of, first_output

        device = device_of(student)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            classes = answers(teacher, context.example_inputs[0].to(device)).shape[1]
            contest = Contest(student, Discriminator(classes, self.width)).to(device)

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            wanted = answers(teacher, x)
            output = first_output(model(x))
            pulled = self.outputs_loss(output, wanted, y) + self.weight * contest.student_loss(output, y)
            return pulled + contest.judge_loss(output, wanted, y), output

        yield contest, loss
