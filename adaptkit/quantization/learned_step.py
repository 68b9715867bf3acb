"""Learned step size: the scales of a plan become parameters that are trained with the weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import ModelError
from adaptkit.quantization.capture import fixed_values
from adaptkit.quantization.placement import CLIPS_ABOVE, LAYERS
from adaptkit.quantization.plan import Grid
from adaptkit.quantization.simulate import FakeQuantize, QuantizedModel, along
from adaptkit.quantization.weights import bias_grid, roomy

_SMALLEST = 1e-9


class _Rounded(torch.autograd.Function):
    """Rounding with the gradients of LSQ; `step` has a shape that multiplies x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, grid: Grid, gradient_scale: float) -> Tensor:
        zero = grid.zero_point[0]
        scaled = x * (1 / step)
        rounded = torch.floor(scaled / 2).mul_(2).add_(1) if grid.odd else torch.round(scaled)
        integers = rounded.clamp_(grid.lowest - zero, grid.highest - zero)
        # Odd integers are the middles of their cells, of which the outer two reach one step further.
        margin = 1 if grid.odd else 0
        inside = scaled == scaled.clamp(grid.lowest - zero - margin, grid.highest - zero + margin)
        ctx.save_for_backward(inside, integers - scaled.mul_(inside))
        ctx.shape, ctx.gradient_scale = step.shape, gradient_scale
        return integers * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        inside, by_step = ctx.saved_tensors
        reduced = (gradient * by_step).sum_to_size(ctx.shape) * ctx.gradient_scale
        return gradient * inside, reduced, None, None


def learned_rounding(x: Tensor, step: Tensor, grid: Grid, values: int) -> Tensor:
    """Round to a grid whose scale is learnt.

    x̂ = s · q with q = clamp(round(x / s) + z) − z; ∂x̂/∂x is 1 inside of the grid and 0 outside, ∂x̂/∂s is q − x / s
    inside and q outside, times 1 / √(N · Q) for N values a scale and the largest integer Q (Esser et al. 2020, "Learned
    Step Size Quantization", sections 2.1 and 2.2).

    Args:
        x: Weights or activations.
        step: s, one value or one a channel; positive.
        grid: Bits, zero point and axis; its own scale is not used.
        values: N: weights that share a scale, or values of an activation in one sample.

    Example:
        >>> step = torch.tensor([0.5], requires_grad=True)
        >>> x = learned_rounding(torch.tensor([0.6, 9.0]), step, Grid((1.0,), (0,), bits=3), values=2)
        >>> x.sum().backward()
        >>> x.tolist(), round(step.grad.item() * 6**0.5, 3)
        ([0.5, 1.5], 2.8)
    """
    gradient_scale = float((values * max(grid.highest - grid.zero_point[0], 1)) ** -0.5)
    return _Rounded.apply(x, along(step, grid, x), grid, gradient_scale)  # type: ignore[no-any-return]


class LearnedRounding(nn.Module):
    """`learned_rounding` with a step of its own, or one that several tensors share.

    Args:
        grid: Its bits, zero point and axis.
        step: The parameter that is learnt.
        batched: Whether the first dimension counts samples, as of activations.
        largest: What the step may not pass.
    """

    def __init__(self, grid: Grid, step: nn.Parameter, batched: bool, largest: float = math.inf) -> None:
        super().__init__()
        self.grid, self.step, self.batched, self.largest = grid, step, batched, largest

    @property
    def scale(self) -> Tensor:
        """The step that is used: the optimizer may carry the parameter past zero or too far, the scale stays inside."""
        size = self.step.abs()
        # Unlike `clamp`, it passes the gradient of a step on its bound, where that of a ReLU6 starts.
        return torch.where((size >= _SMALLEST) & (size <= self.largest), size, size.clamp(_SMALLEST, self.largest))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; its shape stays."""
        values = x[0].numel() if self.batched else x.numel() // self.step.numel()
        return learned_rounding(x, self.scale, self.grid, values)


class LearnedSteps(nn.Module):
    """A quantized model whose weights and scales are trained; any loss will do, `fit` trains it like any module.

    Normalizations are folded with the statistics they have; their γ and β are trained. Biases are not rounded here, as
    their steps (s_x · s_w) are far too small to matter. Activations that shared a grid share a step. `finished` gives
    back a QuantizedModel, with the steps that were learnt as its plan.

    Args:
        quantized: Where training starts; its model is trained, not copied.

    Raises:
        ModelError: The plan limits partial sums.

    Example:
        >>> from adaptkit.quantization.plan import ExampleInput, QuantizationPlan
        >>> net = nn.Linear(4, 2)
        >>> plan = QuantizationPlan({"input": Grid((0.1,), (128,), signed=False)}, (ExampleInput((1, 4)),))
        >>> learner = LearnedSteps(QuantizedModel(net, plan))
        >>> sorted(name for name, _ in learner.named_parameters())
        ['graph.quantize_input.step', 'model.bias', 'model.weight']
    """

    def __init__(self, quantized: QuantizedModel) -> None:
        super().__init__()
        if quantized.plan.accumulators:
            raise ModelError("limited partial sums are simulated after training: learn the steps first")
        self.model = quantized.model
        self.plan = quantized.plan
        self.simulator = quantized.simulator
        self.captured, self.keys = self.simulator.captured, self.simulator.keys
        # Past the bound of ReLU6, ONNX Runtime would no longer leave the clipping to the rounding.
        bounded = {node.name for node in self.captured.graph.nodes if node.target in CLIPS_ABOVE}
        steps: dict[Grid, nn.Parameter] = {}
        root = nn.Module()
        for name, key in self.keys.items():
            rounding = getattr(self.simulator.module, name)
            if isinstance(rounding, FakeQuantize):
                largest = rounding.grid.scale[0] if key in bounded else math.inf
                rounding = _learner(key, rounding, steps, largest)
            root.add_module(name, rounding)
        self.graph = fx.GraphModule(root, self.captured.graph)
        self.train(quantized.training)

    def forward(self, *inputs: Tensor) -> Any:
        """Simulate the integer model; same shapes as the float model."""
        values = self.captured.arguments(self.model, inputs)
        ordered = [values[node.name] for node in self.graph.graph.nodes if node.op == "placeholder"]
        return self.captured.outputs(self.graph(*ordered))

    @torch.no_grad()
    def finished(self) -> QuantizedModel:
        """Return the quantized model with what was learnt."""
        learnt = {key: getattr(self.graph, name) for name, key in self.keys.items()}
        tensors = {
            key: _with_step(grid, learnt[key].scale) if isinstance(learnt[key], LearnedRounding) else grid
            for key, grid in self.plan.tensors.items()
        }
        # What has only moved had no rounding of its own: it keeps the grid of what it was moved from.
        renewed = {
            self.plan.tensors[key]: tensors[key]
            for key in tensors
            if not key.endswith((".weight", ".bias")) and isinstance(learnt[key], LearnedRounding)
        }
        for key, grid in tensors.items():
            if isinstance(learnt[key], nn.Identity):
                tensors[key] = renewed.get(grid, grid)
        self._renew_biases(tensors)
        plan = dataclasses.replace(self.plan, tensors=tensors)
        return QuantizedModel(self.model, plan, self.simulator.replanned(plan)).train(self.training)

    def _renew_biases(self, tensors: dict[str, Grid]) -> None:
        values = fixed_values(self.captured, self.model)
        for layer in self.captured.graph.nodes:
            if layer.target not in LAYERS or f"{layer.name}.bias" not in tensors:
                continue
            scale = tensors[_input_key(layer, self.keys)].scale[0]
            rounding = layer.args[2]
            grid = roomy(tensors[f"{layer.name}.weight"], values[rounding.args[0].name], scale)
            tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"] = grid, bias_grid(grid, scale)


def _learner(key: str, rounding: FakeQuantize, steps: dict[Grid, nn.Parameter], largest: float) -> nn.Module:
    grid = rounding.grid
    if key.endswith(".bias"):
        return nn.Identity()
    if grid.block is not None:
        return rounding
    shared = not key.endswith(".weight")
    step = steps.get(grid) if shared else None
    if step is None:
        step = nn.Parameter(rounding.scale.detach().clone())
        if shared:
            steps[grid] = step
    return LearnedRounding(grid, step, shared, largest)


def _with_step(grid: Grid, step: Tensor) -> Grid:
    return dataclasses.replace(grid, scale=tuple(step.tolist()))


def _input_key(layer: fx.Node, keys: dict[str, str]) -> str:
    source = layer.args[0]
    assert isinstance(source, fx.Node)
    return keys[str(source.target)]
