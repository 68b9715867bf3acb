"""What every kind of quantization shares: which layers it takes, and how integers are laid over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.errors import ModelError, TargetError
from adaptkit.technique import Context, Form, Technique

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.quantization.capture import Captured
    from adaptkit.quantization.placement import Placement
    from adaptkit.quantization.plan import QuantizationPlan
    from adaptkit.quantization.planner import Rounding
    from adaptkit.quantization.simulate import QuantizedModel

_SCALE = 4
"""Bytes of a scale."""


class Quantization(Technique):
    """Choose the layers to quantize."""

    leaves: ClassVar[frozenset[Form]] = frozenset({"quantized"})
    refuses: ClassVar[Mapping[Form, str]] = {"quantized": "the layers have their integers already"}

    kinds: ClassVar[str] = "linear layers and convolutions of one or two dimensions"
    """What is quantized, in words."""

    targets: tuple[str, ...] = ("*",)
    """Which layers: class names, globs over module names, or `re:` and a regular expression."""
    ignore: tuple[str, ...] = ()
    """Which layers stay float."""

    def check(self, model: nn.Module) -> list[str]:
        """Say when the patterns leave no layer to quantize, or name nothing."""
        from adaptkit.surgery import find_modules, unmatched

        patterns = [p for p in (*self.targets, *self.ignore) if p != "*"]
        problems = super().check(model)
        problems += [f"{pattern} matches no module of the model" for pattern in unmatched(model, patterns)]
        weighted = [m for m in find_modules(model, self.targets, self.ignore).values() if _has_weight(m)]
        return problems if weighted or problems else ["the patterns leave no layer with weights to quantize"]

    def placement(self, captured: Captured, model: nn.Module, notes: list[str]) -> Placement:
        """Find the layers that the patterns leave and that get smaller, and the activations around them.

        Raises:
            ModelError: Weights of such a layer are not finite.
            TargetError: There is no such layer.
        """
        from adaptkit.quantization.planner import other_kinds, place_layers
        from adaptkit.surgery import find_modules

        wanted = find_modules(model, self.targets, self.ignore)
        larger = [name for name, module in wanted.items() if self._would_grow(module)]
        if larger:
            notes.append(f"left float, since integers and scales would take no fewer bytes: {', '.join(larger)}")
        found = place_layers(captured, model, set(wanted).difference(larger))
        if not found.layers:
            raise TargetError(
                f"{type(model).__name__} has no convolution or linear layer that targets={list(self.targets)} and "
                f"ignore={list(self.ignore)} leave to quantize"
            )
        others = other_kinds(captured, {name: wanted[name] for name in wanted if name not in larger}, found)
        if others:
            notes.append(f"left float, since only {self.kinds} are quantized: {', '.join(others)}")
        return found

    def channel_bytes(self, weights: int) -> float:
        """Count what the file holds for the weights of one output channel: eight bits each and a scale.

        Args:
            weights: How many they are.
        """
        return weights + _SCALE

    def _would_grow(self, module: nn.Module) -> bool:
        weight = module._parameters.get("weight")
        if weight is None or weight.dim() < 2:
            return False
        each = weight[0].numel()
        return self.channel_bytes(each) >= each * weight.element_size()


class IntegerQuantization(Quantization):
    """Compute on integers, with scales found on calibration data."""

    calibration: int = Field(512, ge=1)
    """How many calibration samples are used."""
    ranges: Literal["minmax", "percentile", "entropy", "mse"] = "mse"
    """How the range of an activation is found."""
    percentile: float = Field(99.99, gt=50, le=100)
    """Share of the values to keep, in percent, for `ranges: percentile`."""
    activations: Literal["uint8", "int8"] = "uint8"
    """Integers of the activations."""
    symmetric: bool = False
    """Whether the zero of an activation's grid lies in its middle."""
    per_channel: bool = True
    """One weight scale an output channel, or one a layer."""
    equalize: bool = False
    """Whether neighbouring layers are scaled to equal ranges first; helps where a layer has one scale."""
    rounding: Literal["nearest", "learned"] = "nearest"
    """Whether a weight goes to the nearest integer, or to whichever of its two keeps the layer's outputs."""
    bias_correction: bool = True
    """Whether the mean error of the rounded weights is taken out of the biases."""

    def start(self, model: nn.Module, context: Context, rounding: Rounding) -> QuantizedModel:
        """Quantize a model after training; its weights and biases change as the settings say.

        Raises:
            ModelError: The model cannot be captured, or takes several inputs and is to be trained.
            DataError: The calibration data is missing or empty, does not fit, or gives values that are not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        from adaptkit.quantization.equalize import equalize
        from adaptkit.quantization.simulate import QuantizedModel, Simulator, captured_and_folded, described

        if len(context.example_inputs) > 1 and "train" in self.needs:
            raise ModelError(
                f"{type(model).__name__} takes {len(context.example_inputs)} inputs, and training data holds one: "
                "use quantize.static, quantize.dynamic or quantize.weight_only, which do not train"
            )
        model.eval()
        captured = captured_and_folded(model, described(context.example_inputs))
        if self.equalize:
            pairs = equalize(captured, model)
            context.notes.append(f"{pairs} pairs of layers were scaled to equal ranges")
        plan = self._plan(captured, model, context, rounding)
        quantized = QuantizedModel(model, plan, Simulator(captured, plan))
        self._correct(quantized, context)
        return quantized

    def rounding_rule(self, bits: int | None, layer_bits: dict[str, int] | None = None) -> Rounding:
        """Say how grids are chosen; bits=None is eight that cannot saturate."""
        from adaptkit.quantization.planner import Rounding

        return Rounding(
            ranges=self.ranges,
            percentile=self.percentile,
            signed=self.activations == "int8",
            symmetric=self.symmetric,
            weight_bits=bits,
            layer_bits=layer_bits or {},
            per_channel=self.per_channel,
        )

    def _correct(self, quantized: QuantizedModel, context: Context) -> None:
        from adaptkit.quantization.calibrate import batches
        from adaptkit.quantization.correct import correct_biases
        from adaptkit.quantization.reconstruct import reconstruct

        samples = batches(context.calibration, self.calibration)
        if self.rounding == "learned":
            learnt = reconstruct(quantized, samples, self.bias_correction)
            context.notes.append(f"the rounding of {learnt} layers was learnt on the calibration samples")
        elif self.bias_correction:
            correct_biases(quantized, samples)

    def _plan(self, captured: Captured, model: nn.Module, context: Context, rounding: Rounding) -> QuantizationPlan:
        from adaptkit.quantization.calibrate import batches, histograms
        from adaptkit.quantization.planner import make_plan
        from adaptkit.quantization.simulate import described

        placement = self.placement(captured, model, context.notes)
        found = histograms(captured, model, placement.groups, lambda: batches(context.calibration, self.calibration))
        plan = make_plan(captured, model, placement, found, rounding)
        return dataclasses.replace(plan, inputs=described(context.example_inputs))


def _has_weight(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
