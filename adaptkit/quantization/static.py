"""Static post-training quantization, as a technique."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.errors import TargetError
from adaptkit.technique import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.quantization.capture import Captured
    from adaptkit.quantization.plan import QuantizationPlan


class StaticQuantization(Technique):
    """Store weights in 8-bit integers and compute on 8-bit integers, with scales found on calibration data.

    x ≈ s · (q − z). Weights: int8, symmetric (z = 0), one scale an output channel, of least squared error. Activations:
    uint8 or int8, asymmetric, one scale a tensor, over the range that `ranges` finds. Biases: int32 with s = s_x · s_w.
    Batch normalization is folded first. The method is that of Jacob et al. 2018 ("Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference"), sections 2 and 3, without training.

    On a CPU without VNNI (before about 2019, and many small ones of today) ONNX Runtime adds two 8-bit products in 16
    bits, which saturate: full 8-bit weights lose accuracy there and nowhere else. `weight_bits: auto` keeps eight bits
    and chooses the scale of each channel so that no pair of products can saturate; `7` is safe by its range alone; `8`
    is for machines known to have VNNI, or ARM.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> x = torch.rand(8, 1, 4, 4)
        >>> context = Context(example_inputs=(x[:1],), calibration=(x, torch.zeros(8, dtype=torch.long)))
        >>> quantized = StaticQuantization(calibration=8).apply(net, context)
        >>> bool((quantized(x) - net(x)).abs().max() < 0.05)
        True
    """

    name: ClassVar[str] = "quantize.static"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    targets: tuple[str, ...] = ("*",)
    """Which layers: class names, globs over module names, or `re:` and a regular expression."""
    ignore: tuple[str, ...] = ()
    """Which layers stay float."""
    calibration: int = Field(512, ge=1)
    """How many calibration samples are used."""
    ranges: Literal["minmax", "percentile", "entropy", "mse"] = "mse"
    """How the range of an activation is found."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Share of the values to keep, in percent, for `ranges: percentile`."""
    activations: Literal["uint8", "int8"] = "uint8"
    """Integers of the activations."""
    weight_bits: Literal[7, 8, "auto"] = "auto"
    """Bits of a weight: 8, 7, or 8 limited to what no CPU saturates on."""
    per_channel: bool = True
    """One weight scale an output channel, or one a layer."""
    bias_correction: bool = True
    """Whether the mean error of the rounded weights is taken out of the biases."""

    def check(self, model: nn.Module) -> list[str]:
        """Say when the patterns leave no layer to quantize, or name nothing."""
        from adaptkit.surgery import find_modules, unmatched

        patterns = [p for p in (*self.targets, *self.ignore) if p != "*"]
        problems = [f"{pattern} matches no module of the model" for pattern in unmatched(model, patterns)]
        weighted = [m for m in find_modules(model, self.targets, self.ignore).values() if _has_weight(m)]
        return problems if weighted or problems else ["the patterns leave no layer with weights to quantize"]

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model, whose biases may have been corrected.

        Raises:
            ModelError: The model cannot be captured.
            DataError: The calibration data is empty or gives values that are not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        from adaptkit.quantization.calibrate import batches
        from adaptkit.quantization.correct import correct_biases
        from adaptkit.quantization.simulate import QuantizedModel, captured_and_folded

        model.eval()
        captured = captured_and_folded(model, tuple(tuple(x.shape) for x in context.example_inputs))
        quantized = QuantizedModel(model, self._plan(captured, model, context), captured)
        if self.bias_correction:
            correct_biases(quantized, batches(context.calibration, self.calibration))
        context.notes.extend(self._notes(quantized.plan))
        return quantized

    def _notes(self, plan: QuantizationPlan) -> list[str]:
        layers = sum(key.endswith(".weight") for key in plan.tensors)
        notes = [f"{layers} layers compute on 8-bit integers, calibrated on at most {self.calibration} samples"]
        if self.weight_bits == 8:
            notes.append("weights use all 8 bits: on x86 CPUs without VNNI products can saturate and cost accuracy")
        return notes

    def _plan(self, captured: Captured, model: nn.Module, context: Context) -> QuantizationPlan:
        from adaptkit.quantization.calibrate import batches, histograms
        from adaptkit.quantization.planner import Rounding, make_plan, place_layers
        from adaptkit.surgery import find_modules

        placement = place_layers(captured, model, set(find_modules(model, self.targets, self.ignore)))
        if not placement.layers:
            raise TargetError(
                f"{type(model).__name__} has no convolution or linear layer that targets={list(self.targets)} and "
                f"ignore={list(self.ignore)} leave to quantize"
            )
        found = histograms(captured, model, placement.groups, lambda: batches(context.calibration, self.calibration))
        bits = None if self.weight_bits == "auto" else self.weight_bits
        rounding = Rounding(self.ranges, self.percentile, self.activations == "int8", bits, self.per_channel)
        shapes = tuple(tuple(x.shape) for x in context.example_inputs)
        return dataclasses.replace(make_plan(captured, model, placement, found, rounding), inputs=shapes)


def _has_weight(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
