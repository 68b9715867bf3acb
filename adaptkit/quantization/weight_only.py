"""Weight-only quantization: a smaller file, computed in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.quantization.base import Quantization
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.quantization.plan import Grid

_NOTES = {
    "float16": "ONNX Runtime's CPU provider has few kernels for float16: weights become float32 on opening the file",
    "bfloat16": "ONNX Runtime's CPU provider has no kernels for bfloat16: weights become float32 on opening the file",
}


class WeightOnlyQuantization(Quantization):
    """Store the weights in 8 or 4 bits, or in 16 bits of floating point; activations stay float32.

    w ≈ s · q, symmetric, s of least squared error for an output channel, or for each `block` of its weights. In the
    file a weight is followed by DequantizeLinear (blocks of 4 bits of a linear layer in the form that ONNX Runtime
    fuses into its four-bit product, MatMulNBits), or by a Cast. Convolutions have no such kernel: their weights are
    put back into float. What is won is the size of the file. No data is needed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net, x = nn.Sequential(nn.Linear(64, 8)), torch.randn(4, 64)
        >>> half = WeightOnlyQuantization(weights="float16").apply(net, Context(example_inputs=(x,)))
        >>> torch.equal(half(x), nn.functional.linear(x, net[0].weight.half().float(), net[0].bias))
        True
    """

    name: ClassVar[str] = "quantize.weight_only"

    weights: Literal["int8", "int4", "float16", "bfloat16"] = Field("int8", description="How a weight is stored.")
    block: Literal[16, 32, 64, 128, 256] | None = Field(
        None,
        description="How many neighbouring weights of an output channel share a scale; the whole channel where none is "
        "given, which for int4 means 32.",
    )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model.

        Raises:
            ModelError: The model cannot be captured.
            TargetError: There is no convolution or linear layer to quantize.
        """
        from adaptkit.quantization.capture import fixed_values
        from adaptkit.quantization.plan import QuantizationPlan
        from adaptkit.quantization.simulate import QuantizedModel, Simulator, captured_and_folded, described

        model.eval()
        inputs = described(context.example_inputs)
        captured = captured_and_folded(model, inputs)
        values = fixed_values(captured, model)
        weights = {
            f"{layer.name}.weight": values[str(layer.args[1])]
            for layer in self.placement(captured, model, context.notes).layers
        }
        if self.weights in _NOTES:
            plan = QuantizationPlan({}, inputs, formats=dict.fromkeys(weights, self.weights))
            context.notes.append(_NOTES[self.weights])
        else:
            plan = QuantizationPlan({key: self._grid(weight) for key, weight in weights.items()}, inputs)
        context.notes.append(
            f"the weights of {len(weights)} layers are stored as {self.weights}, activations stay float"
        )
        return QuantizedModel(model, plan, Simulator(captured, plan))

    def channel_bytes(self, weights: int) -> float:
        """Count the bits of the weights, and a scale for the channel or for each of its blocks."""
        if self.weights in _NOTES:
            return 2 * weights
        block = self._block()
        scales = 1 if block is None else -(-weights // block)
        return (0.5 if self.weights == "int4" else 1) * weights + 4 * scales

    def _block(self) -> int | None:
        return self.block or (32 if self.weights == "int4" else None)

    def _grid(self, weight: Tensor) -> Grid:
        from adaptkit.quantization.weights import block_grid, weight_grid

        block = self._block()
        if block is None:
            return weight_grid(weight, bits=8)
        return block_grid(weight, 4 if self.weights == "int4" else 8, block)
