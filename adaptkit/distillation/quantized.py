"""Distillation into a quantized student (Mishra and Marr 2018; Polino et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.quantization.qat import TrainedQuantization
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context, Form

if TYPE_CHECKING:
    from torch import nn


class QuantizedDistillation(TrainedQuantization):
    """Train a quantized student, its weights and its scales, on the softened outputs of a float teacher.

    Minimises α T² KL(teacher ‖ student) + (1 − α) CE, where the student computes with rounded weights and activations
    as the exported file will (Polino, Pascanu and Alistarh 2018, "Model compression via distillation and quantization",
    section 3; Mishra and Marr 2018, "Apprentice", scheme B for a student that starts untrained, C for a trained one).
    The teacher is the model before any step, or a larger one that is named. A model that is quantized already keeps its
    grids and goes on from there; a float one is quantized first, by the settings that say how.

    Example:
        >>> QuantizedDistillation(weight_bits=4, teacher={"zoo": "resnet_digits"}).weight_bits
        4
    """

    name: ClassVar[str] = "distill.quantized"
    refuses: ClassVar[Mapping[Form, str]] = {
        "limited sums": "partial sums of few bits are found for weights that stay as they are"
    }
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "train", "teacher"})

    teacher: ModelSpec | None = Field(None, description="Another teacher than the model before any step.")
    weight_bits: Annotated[int, Field(ge=1, le=8)] = Field(7, description="Bits of a weight.")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return the trained QuantizedModel.

        Raises:
            ModelError: There is no teacher, it has other classes than the student, or the model cannot be captured.
            DataError: There is no training data, or the calibration data is empty or not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        from adaptkit.distillation.teachers import answers, find_teacher, require_same_classes
        from adaptkit.metrics.task import device_of
        from adaptkit.quantization.simulate import QuantizedModel

        teacher = find_teacher(self.name, self.teacher, model, context).eval()
        x = context.example_inputs[0].to(device_of(model))
        require_same_classes(answers(model.eval(), x), answers(teacher, x))
        quantized = model
        if not isinstance(quantized, QuantizedModel):
            quantized = self.start(model, context, self.rounding_rule(self.weight_bits))
        return self.train_steps(quantized, teacher, context)
