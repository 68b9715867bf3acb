"""Distillation from several teachers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.distillation.base import SoftDistillation
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn


class MultiTeacherDistillation(SoftDistillation):
    """Train the model on the mean of what several teachers say, and on the targets.

    Minimises α T² KL(Σ_k w_k p_k ‖ student) + (1 - α) CE, where p_k is the softmax of teacher k at temperature T. The
    weights w are equal (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 1, for
    an ensemble), given, or found for each sample from how right each teacher is about it (Zhang, Chen and Wang 2022,
    "Confidence-aware multi-teacher knowledge distillation", section 2).

    Example:
        >>> step = MultiTeacherDistillation(teachers=[{"zoo": "lenet5_digits"}], weights=[3, 1])
        >>> step.weights
        (3.0, 1.0)
    """

    name: ClassVar[str] = "distill.multi_teacher"
    of_classes: ClassVar[bool] = True

    teachers: Annotated[tuple[ModelSpec, ...], Field(min_length=1)] = Field(
        description="Further teachers, besides the model before any step (or `teacher`)."
    )
    weights: Literal["equal", "confidence"] | tuple[Annotated[float, Field(ge=0)], ...] = Field(
        "equal",
        description="The same for all; by how right each is about a sample; or one number each, the first teacher's "
        "(the model before any step, or `teacher`) first.",
    )

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if isinstance(self.weights, str):
            return self
        count = 1 + len(self.teachers)
        if len(self.weights) != count:
            raise ValueError(f"weights has {len(self.weights)} numbers for {count} teachers, the first one included")
        if sum(self.weights) == 0:
            raise ValueError("weights are all 0; one teacher must have a say")
        return self

    def load_teacher(self, model: nn.Module, context: Context) -> nn.Module:
        """Give all teachers as one module.

        Raises:
            ModelError: There is no first one, or another cannot be built.
        """
        from adaptkit.distillation.teachers import Teachers
        from adaptkit.loading.models import load_model
        from adaptkit.metrics.task import device_of

        further = [load_model(spec).to(device_of(model)) for spec in self.teachers]
        return Teachers([super().load_teacher(model, context), *further])

    def outputs_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Compare with the mean of the teachers, teachers × N × classes."""
        from adaptkit.distillation.teachers import mixed_logits

        mean = mixed_logits(wanted, self._shares(wanted, target), self.temperature)
        return super().outputs_loss(output, mean, target)

    def _shares(self, wanted: Tensor, target: Tensor) -> Tensor:
        from adaptkit.distillation.teachers import confidence_weights

        if self.weights == "confidence":
            return confidence_weights(wanted, target)
        weights = wanted.new_tensor([1.0] * len(wanted) if self.weights == "equal" else self.weights)
        return weights / weights.sum()
