"""Distillation of relations (DIST; Huang et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.distillation.base import Distillation

if TYPE_CHECKING:
    from torch import Tensor


class RelationDistillation(Distillation):
    """Train the model to rank classes and samples as its teacher does, rather than to repeat its probabilities.

    Minimises CE + T² (β (1 - ρ of each sample's classes) + γ (1 - ρ of each class's samples)), where ρ is Pearson's
    correlation of the softened probabilities (Huang et al. 2022, "Knowledge distillation from a stronger
    teacher"). A weak student cannot be as sure as a strong teacher; here it need not be. A
    correlation does not shrink with the differences it compares, which are small at a high T: lower the weights there.

    Example:
        >>> RelationDistillation(temperature=4).temperature
        4.0
    """

    name: ClassVar[str] = "distill.dist"
    of_classes: ClassVar[bool] = True

    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="T: how much both outputs are softened.")
    inter_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="β: weight of the relation between the classes of a sample."
    )
    intra_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="γ: weight of the relation between the samples of a batch, class by class."
    )

    def outputs_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """Add the two relations to the cross entropy."""
        from adaptkit.distillation.losses import dist_loss
        from adaptkit.distillation.teachers import require_same_classes

        require_same_classes(output, wanted)
        relations = dist_loss(output, wanted, self.temperature, self.inter_weight, self.intra_weight)
        return self.targets_loss(output, target) + relations
