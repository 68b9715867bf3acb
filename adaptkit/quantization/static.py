"""Static post-training quantization, as a technique."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from adaptkit.quantization.base import IntegerQuantization
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.quantization.plan import QuantizationPlan


class StaticQuantization(IntegerQuantization):
    """Store weights in 8-bit integers and compute on 8-bit integers, with scales found on calibration data.

    x ≈ s · (q − z). Weights: int8, symmetric (z = 0), one scale an output channel, of least squared error. Activations:
    uint8 or int8, asymmetric, one scale a tensor, over the range that `ranges` finds; what is added before a ReLU gets
    the range of what the ReLU leaves of it (`rectified`). Biases: int32 with s = s_x · s_w.
    Batch normalization is folded first. The method is that of Jacob et al. 2018 ("Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference"), sections 2 and 3, without training.

    On a CPU without VNNI (before about 2019, and many small ones of today) ONNX Runtime adds two 8-bit products in 16
    bits, which saturate: full 8-bit weights lose accuracy there and nowhere else. `weight_bits: auto` keeps eight bits
    and chooses the scale of each channel so that no pair of products can saturate; `7` is safe by its range alone; `8`
    is for machines known to have VNNI, or ARM.

    `equalize` scales neighbouring layers to equal ranges (Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", section 4.1), `bias_correction` is that of its section 4.2 with measured means,
    and `rounding: learned` solves the problem of AdaRound (Nagel et al. 2020, "Up or Down? Adaptive Rounding for
    Post-Training Quantization") layer after layer; see `rounding.learn_rounding` for how.

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

    weight_bits: Literal[7, 8, "auto"] = "auto"
    """Bits of a weight: 8, 7, or 8 limited to what no CPU saturates on."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model, whose weights and biases may have been corrected.

        Raises:
            ModelError: The model cannot be captured.
            DataError: The calibration data is empty or gives values that are not finite.
            TargetError: There is no convolution or linear layer to quantize.
        """
        bits = None if self.weight_bits == "auto" else self.weight_bits
        quantized = self.start(model, context, self.rounding_rule(bits))
        context.notes.extend(self._notes(quantized.plan))
        return quantized

    def _notes(self, plan: QuantizationPlan) -> list[str]:
        layers = sum(key.endswith(".weight") for key in plan.tensors)
        notes = [f"{layers} layers compute on 8-bit integers, calibrated on at most {self.calibration} samples"]
        if self.weight_bits == 8:
            notes.append("weights use all 8 bits: on x86 CPUs without VNNI products can saturate and cost accuracy")
        return notes
