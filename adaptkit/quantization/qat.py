"""Quantization-aware training, as a technique."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.errors import DataError
from adaptkit.quantization.base import IntegerQuantization
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.quantization.simulate import QuantizedModel
    from adaptkit.training.losses import StepLoss


class TrainedQuantization(IntegerQuantization):
    """Train the weights and the scales of a quantized model, beside the float model it came from."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "train"})

    rounding: Literal["nearest", "learned"] = "learned"
    """Whether training starts from the nearest integers, or from those that keep each layer's outputs."""
    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")
    batch_norm: Literal["frozen", "reestimated"] = Field(
        "frozen",
        description="Statistics that normalizations are folded with: those of the float model, or measured under "
        "rounding before training.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="T: how much both outputs are softened.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="Weight of the float model against the targets."
    )
    fit: FitSettings = FitSettings(learning_rate=0.02, weight_decay=1e-4, schedule="cosine", gradient_clip=5.0)

    def check(self, model: nn.Module) -> list[str]:
        """Say, too, when training would not see the integers exactly."""
        half = self.fit.precision != "float32"
        problem = f"integers are simulated exactly in float32 only: leave out fit.precision={self.fit.precision}"
        return super().check(model) + ([problem] if half else [])

    def train_steps(self, quantized: QuantizedModel, teacher: nn.Module, context: Context) -> QuantizedModel:
        """Train weights and scales; returns the quantized model with what was learnt."""
        from adaptkit.quantization.batch_norm import reestimate
        from adaptkit.quantization.calibrate import batches
        from adaptkit.quantization.learned_step import LearnedSteps
        from adaptkit.training.checkpoint import state_sha256
        from adaptkit.training.fit import fit

        if context.train is None:
            raise DataError(f"{self.name} needs training data: give Context(train=...)")
        if self.batch_norm == "reestimated":
            quantized = reestimate(quantized, batches(context.calibration, self.calibration))
        learner = LearnedSteps(quantized)
        result = fit(
            learner,
            context.train,
            epochs=self.epochs,
            settings=self.fit,
            loss=self._objective(teacher),
            seed=context.seed,
            workspace=context.workspace,
            progress=context.progress,
            tag=f"{self.model_dump_json()} {state_sha256(teacher)}",
        )
        if result.train_accuracy is not None:
            context.notes.append(
                f"trained for {self.epochs:g} epochs ({result.steps} steps); accuracy on the training batches of the "
                f"last epoch {100 * result.train_accuracy:.2f} %"
            )
        return learner.finished()

    def _objective(self, teacher: nn.Module) -> StepLoss:
        import torch

        from adaptkit.distillation.losses import soft_loss
        from adaptkit.metrics.task import first_output
        from adaptkit.quantization.sensitivity import class_scores

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            output = class_scores(model(x))
            with torch.no_grad():
                wanted = first_output(teacher(x)) if self.alpha else output
            smoothing = self.fit.label_smoothing
            return soft_loss(output, wanted, y, self.temperature, self.alpha, smoothing), output

        return loss


class QuantizationAwareTraining(TrainedQuantization):
    """Quantize as `quantize.static` does, then train weights and scales as integers will compute with them.

    The scale of every weight channel and of every activation is a parameter (learned step size: Esser et al. 2020,
    "Learned Step Size Quantization"; see `learned_step.learned_rounding` for the gradients); rounding passes gradients
    straight through. Batch normalization is folded with fixed statistics, its γ and β are trained. The loss is that of
    `distill.logits`, with the float model as the teacher: α T² KL(teacher ‖ student) + (1 − α) cross entropy.

    The default of 7 bits cannot saturate on a CPU without VNNI (see `quantize.static`), and training makes up for the
    eighth bit. Weights of fewer than 8 bits are packed in the file, and computed in 8.

    Example:
        >>> QuantizationAwareTraining(weight_bits=4, epochs=2).weight_bits
        4
    """

    name: ClassVar[str] = "quantize.qat"

    weight_bits: Annotated[int, Field(ge=1, le=8)] = Field(7, description="Bits of a weight.")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model, which is trained.

        Raises:
            ModelError: The model cannot be captured.
            DataError: There is no training data, or the calibration data is empty or not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        import copy

        teacher = copy.deepcopy(model).eval()
        quantized = self.start(model, context, self.rounding_rule(self.weight_bits))
        if self.weight_bits == 8:
            context.notes.append("weights use all 8 bits: on x86 CPUs without VNNI products can saturate")
        return self.train_steps(quantized, teacher, context)
