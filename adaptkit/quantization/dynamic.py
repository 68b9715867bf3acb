"""Dynamic quantization: weights in integers, activations turned into integers in every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from adaptkit.quantization.base import Quantization
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import nn


class DynamicQuantization(Quantization):
    """Store the weights of linear layers in 8-bit integers, and turn their inputs into integers in every call.

    x ≈ s_x (q_x − z), with s_x = (max − min) / 255 over the whole input tensor of the call, zero included (ONNX's
    DynamicQuantizeLinear), and weights int8, symmetric, one scale an output channel, kept within what no CPU saturates
    on (see `quantize.static`). No data is needed. Convolutions stay float: ONNX Runtime's convolution kernels for
    integers want a range that is known beforehand. Meant for transformers and large fully connected layers.

    An input shares its range with the others of its batch, so what is computed for it depends on them a little.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.randn(4, 16)
        >>> quantized = DynamicQuantization().apply(net, Context(example_inputs=(x,)))
        >>> bool((quantized(x) - net(x)).abs().max() < 0.05)
        True
    """

    name: ClassVar[str] = "quantize.dynamic"
    kinds: ClassVar[str] = "linear layers"

    def check(self, model: nn.Module) -> list[str]:
        """Say when the patterns leave no linear layer, or name nothing."""
        from torch import nn

        from adaptkit.surgery import find_modules

        problems = super().check(model)
        found = find_modules(model, self.targets, self.ignore).values()
        linear = any(isinstance(module, nn.Linear | nn.MultiheadAttention) for module in found)
        return problems if problems or linear else ["quantize.dynamic takes linear layers: the patterns leave none"]

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return a QuantizedModel around the given model.

        Raises:
            ModelError: The model cannot be captured.
            TargetError: There is no linear layer to quantize.
        """
        from adaptkit.errors import TargetError
        from adaptkit.quantization.capture import fixed_values
        from adaptkit.quantization.placement import CONVOLUTIONS
        from adaptkit.quantization.plan import QuantizationPlan
        from adaptkit.quantization.planner import owner_of
        from adaptkit.quantization.simulate import QuantizedModel, Simulator, captured_and_folded, described
        from adaptkit.quantization.weights import weight_grid

        model.eval()
        inputs = described(context.example_inputs)
        captured = captured_and_folded(model, inputs)
        found = self.placement(captured, model, context.notes).layers
        layers = [layer for layer in found if layer.target not in CONVOLUTIONS]
        if not layers:
            raise TargetError(f"{type(model).__name__} has no linear layer to quantize; convolutions need fixed ranges")
        values = fixed_values(captured, model)
        grids = {f"{layer.name}.weight": weight_grid(values[str(layer.args[1])]) for layer in layers}
        plan = QuantizationPlan(grids, inputs, dynamic=tuple(layer.name for layer in layers))
        context.notes.append(f"{len(layers)} linear layers compute on 8-bit integers, with ranges found in every call")
        names = [str(owner_of(captured, layer.args[1])) for layer in found if layer.target in CONVOLUTIONS]
        if names:
            context.notes.append(
                f"{len(names)} convolutions stay float: dynamic ranges have no fast kernel ({', '.join(names)})"
            )
        return QuantizedModel(model, plan, Simulator(captured, plan))
