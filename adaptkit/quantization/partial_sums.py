"""Quantized partial sums, as a technique."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.quantization.base import IntegerQuantization
from adaptkit.technique import Context, Form

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.quantization.simulate import QuantizedModel


class PartialSumQuantization(IntegerQuantization):
    """Keep weights, inputs and partial sums in few bits, bit by bit as an accelerator would.

    The products of `tile` input channels (for all positions of the kernel) are added exactly; their sum, rid of its
    `shift` lowest bits, is added to a partial sum of `accumulator_bits` bits, which saturates or wraps. Simulator and
    ONNX file compute the same integers, in operations that every runtime has: this answers what the widths cost in
    accuracy, and is slower than plain int8 on a CPU. What an accelerator would take is estimated by the model that
    `accelerator.Accelerator` states, and goes into the report.

    Example:
        >>> PartialSumQuantization(accumulator_bits=16, tile=16).overflow
        'saturate'
    """

    name: ClassVar[str] = "quantize.partial_sums"
    leaves: ClassVar[frozenset[Form]] = frozenset({"quantized", "limited sums"})
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    weight_bits: Annotated[int, Field(ge=1, le=8)] = Field(8, description="Bits of a weight.")
    activation_bits: Annotated[int, Field(ge=2, le=8)] = Field(8, description="Bits of an activation.")
    accumulator_bits: Annotated[int, Field(ge=4, le=24)] = Field(16, description="Bits of a partial sum.")
    tile: Annotated[int, Field(ge=1)] = Field(16, description="Input channels whose products are added exactly.")
    overflow: Literal["saturate", "wrap"] = Field("saturate", description="What a sum does that does not fit.")
    shift: Annotated[int, Field(ge=0, le=16)] | Literal["auto"] = Field(
        "auto", description="Lowest bits a partial sum drops; auto: as few as the calibration samples allow, by layer."
    )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model.

        Raises:
            ModelError: The model cannot be captured, or a tile is too large to be simulated exactly.
            DataError: The calibration data is empty or not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        from adaptkit.quantization.plan import Accumulator

        rule = dataclasses.replace(self.rounding_rule(self.weight_bits), activation_bits=self.activation_bits)
        quantized = self.start(model, context, rule)
        shifts = self._shifts(quantized, context)
        accumulators = {
            layer: Accumulator(self.accumulator_bits, self.tile, self.overflow, shift)
            for layer, shift in shifts.items()
        }
        context.notes.extend(self._notes(quantized, shifts))
        return quantized.replanned(dataclasses.replace(quantized.plan, accumulators=accumulators))

    def _shifts(self, quantized: QuantizedModel, context: Context) -> dict[str, int]:
        from adaptkit.quantization.calibrate import batches
        from adaptkit.quantization.sensitivity import layer_shapes
        from adaptkit.quantization.sums import largest_sums, needed_shift

        samples = batches(context.calibration, self.calibration)
        largest = largest_sums(quantized, samples, self.tile)
        if self.shift != "auto":
            return dict.fromkeys(largest, self.shift)
        shapes = layer_shapes(quantized, self.tile)
        bits = self.accumulator_bits
        return {layer: needed_shift(value, bits, shapes[layer].tiles) for layer, value in largest.items()}

    def _notes(self, quantized: QuantizedModel, shifts: dict[str, int]) -> list[str]:
        from adaptkit.quantization.accelerator import Accelerator, Widths
        from adaptkit.quantization.sensitivity import layer_shapes

        chip, widths = Accelerator(), Widths(self.weight_bits, self.activation_bits, self.accumulator_bits)
        shapes = layer_shapes(quantized, self.tile).values()
        seconds, plain_seconds = (sum(chip.seconds(shape, w) for shape in shapes) for w in (widths, Widths()))
        energy, plain_energy = (sum(chip.millijoules(shape, w) for shape in shapes) for w in (widths, Widths()))
        return [
            f"{len(shifts)} layers keep partial sums of {self.accumulator_bits} bits, "
            f"{sum(shift > 0 for shift in shifts.values())} of them without their lowest bits",
            f"by the model of an accelerator ({chip.multipliers} multipliers at {chip.hertz / 1e6:g} MHz, energies of "
            f"45 nm) one sample takes {seconds * 1e6:.3g} µs and {energy:.3g} mJ; with 8 × 8 bits and sums of 32 bits "
            f"{plain_seconds * 1e6:.3g} µs and {plain_energy:.3g} mJ",
        ]
