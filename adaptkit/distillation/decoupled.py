"""Decoupled distillation of a teacher's outputs (Zhao et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.distillation.base import Distillation

if TYPE_CHECKING:
    from torch import Tensor


class DecoupledDistillation(Distillation):
    """Train the model on what its teacher says of the target class and, weighed apart, of the other classes.

    Minimises CE + T² (α TCKD + β NCKD) (Zhao et al. 2022, "Decoupled knowledge distillation", section 3.3): TCKD is the
    divergence of teacher and student in how sure they are of the target, NCKD that of their softmax over the other
    classes. In the loss of Hinton et al. the second is weighed by the teacher's doubt, so that a sure teacher teaches
    little; here it is not. Low β where student and teacher are much alike, high β for a teacher that is always sure.

    Example:
        >>> DecoupledDistillation(other_weight=2).other_weight
        2.0
    """

    name: ClassVar[str] = "distill.decoupled"
    of_classes: ClassVar[bool] = True

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="T: how much both outputs are softened.")
    target_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="α: weight of the target class.")
    other_weight: Annotated[float, Field(ge=0)] = Field(8.0, description="β: weight of the other classes.")

    def outputs_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Add the two parts of the distillation to the cross entropy."""
        from adaptkit.distillation.losses import decoupled_loss
        from adaptkit.distillation.teachers import require_same_classes

        require_same_classes(output, wanted)
        weights = self.target_weight, self.other_weight
        return self.targets_loss(output, target) + decoupled_loss(output, wanted, target, self.temperature, *weights)
