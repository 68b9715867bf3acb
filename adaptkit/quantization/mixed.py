"""Mixed precision: bits for each layer under a budget, then training."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from adaptkit.quantization.qat import TrainedQuantization
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.quantization.simulate import QuantizedModel


class MixedPrecision(TrainedQuantization):
    """Give each layer as many bits a weight as it needs under a budget, then train weights and scales.

    For each layer and each width the outputs' divergence is measured with that layer alone at that width; dynamic
    programming then finds the widths of least total divergence within the budget (`allocation.allocate`). The budget is
    a share of the bytes of the float32 weights, scales included, or of the energy at 8 bits by the model of
    `accelerator.Accelerator`. Training is that of `quantize.qat`.

    Weights are packed in the file, bit by bit, and ONNX Runtime unpacks them to int8 when it opens it: the file gets
    smaller with every bit, the speed is that of 8 bits. One and two bits are odd integers, {−1, 1} and {−3, −1, 1, 3},
    without a zero; a layer with pruned weights, which stay zero, gets {−2, …, 1} for two bits, and never one.

    Example:
        >>> MixedPrecision(share=0.1, bits=(2, 4)).bits
        (2, 4)
    """

    name: ClassVar[str] = "quantize.mixed"

    budget: Literal["bytes", "energy"] = Field("bytes", description="What is limited.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1 / 14, description="Of the bytes of the float32 weights, or of the energy at 8 bits."
    )
    bits: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field(
        (1, 2, 3, 4, 5, 6, 7), description="Widths to choose from."
    )
    samples: int = Field(64, ge=1, description="Calibration samples that sensitivities are measured on.")
    epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the training data; parts count.")

    @field_validator("bits")
    @classmethod
    def _ascending(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        if not bits:
            raise ValueError("give at least one width")
        return tuple(sorted(set(bits)))

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model, which is trained.

        Raises:
            ModelError: The model cannot be captured.
            DataError: There is no training data, or the calibration data is empty or not finite.
            TargetError: There is no layer to quantize, or the fewest bits pass the budget.
        """
        import copy

        teacher = copy.deepcopy(model).eval()
        probe = self.model_copy(update={"rounding": "nearest"})
        even = probe.start(copy.deepcopy(model), context.replace(notes=[]), self.rounding_rule(8))
        widths = self._widths(even, context)
        counts = Counter(widths.values())
        listed = ", ".join(f"{count} of {width} bits" for width, count in sorted(counts.items()))
        context.notes.append(f"layers by the width of their weights: {listed}")
        quantized = self.start(model, context, self.rounding_rule(None, widths))
        return self.train_steps(quantized, teacher, context)

    def _widths(self, even: QuantizedModel, context: Context) -> dict[str, int]:
        """Choose the bits of each layer of a model with 8 bits everywhere."""
        import dataclasses

        from adaptkit.quantization.accelerator import Accelerator, Widths
        from adaptkit.quantization.allocation import allocate
        from adaptkit.quantization.calibrate import batches
        from adaptkit.quantization.sensitivity import layer_shapes, pruned_layers, sensitivities, weight_bytes

        losses = sensitivities(even, self.bits, list(batches(context.calibration, self.samples)))
        shapes = layer_shapes(even)
        grids = {name: even.plan.tensors[f"{name}.weight"] for name in shapes}
        if self.budget == "bytes":
            whole = sum(4.0 * shape.weights for shape in shapes.values())
            costs: list[list[float]] = [
                [weight_bytes(dataclasses.replace(grids[name], bits=bits), shapes[name].weights) for bits in self.bits]
                for name in losses
            ]
        else:
            chip = Accelerator()
            whole = sum(chip.millijoules(shape, Widths()) for shape in shapes.values())
            costs = [[chip.millijoules(shapes[name], Widths(weight=bits)) for bits in self.bits] for name in losses]
        if self.bits[0] == 1 and len(self.bits) > 1:
            for name in pruned_layers(even):
                # More than any budget: one bit has no level for their zeros.
                costs[list(losses).index(name)][0] = 2 * whole
        chosen = allocate(costs, list(losses.values()), self.share * whole)
        return {name: self.bits[index] for name, index in zip(losses, chosen, strict=True)}
