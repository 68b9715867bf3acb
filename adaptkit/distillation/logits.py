"""Distillation of a teacher's outputs (Hinton et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from adaptkit.distillation.base import SoftDistillation


class LogitDistillation(SoftDistillation):
    """Train the model on the softened outputs of a teacher and on the targets, to win back lost accuracy.

    Minimises α T² KL(teacher ‖ student) + (1 - α) CE, where both softmaxes of the first term are taken at temperature
    T (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2). The teacher is the
    model before any step, unless one is named; it sees the same augmented images as the student.

    Example:
        >>> LogitDistillation(epochs=0.5, temperature=2).temperature
        2.0
    """

    name: ClassVar[str] = "distill.logits"
