"""Distillation of a teacher's outputs (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from adaptkit.distillation.base import Distillation
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class LogitDistillation(Distillation):
    """Train the model on the softened outputs of a teacher and on the targets, to win back lost accuracy.

    Minimises α T² KL(teacher ‖ student) + (1 - α) CE, where both softmaxes of the first term are taken at temperature
    T (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2). The teacher is the
    model before any step, unless one is named; it sees the same augmented images as the student.

    Example:
        >>> LogitDistillation(epochs=0.5, temperature=2).temperature
        2.0
    """

    name: ClassVar[str] = "distill.logits"

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the outputs alone."""
        import torch

        from adaptkit.metrics.task import first_output

        del context

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                wanted = first_output(teacher(x))
            output = first_output(model(x))
            return self.soft_loss(output, wanted, y), output

        yield student, loss
