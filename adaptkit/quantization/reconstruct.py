"""Layer after layer, weights are rounded so that each computes on quantized inputs what it computed on exact ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from adaptkit.quantization.correct import bias_parameter, quantized_layers
from adaptkit.quantization.fold import folded_weight
from adaptkit.quantization.placement import CONVOLUTIONS
from adaptkit.quantization.plan import Grid
from adaptkit.quantization.rounding import Moments, learn_rounding, step_of
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.quantization.weights import LIMIT, rows_in_runtime_order, worst_pair

WIDEST = 4608
"""Layers with more inputs a value than this are rounded to nearest: their moments would take gigabytes."""
_VECTORS = 8192
_SMALLEST = 1e-8


@torch.no_grad()
def reconstruct(quantized: QuantizedModel, samples: Iterable[tuple[Tensor, ...]], biases: bool = True) -> int:
    """Learn the rounding of every quantized layer from the first to the last, in place.

    Exact and quantized model run side by side over the samples, one operation at a time, so that a layer is rounded on
    the inputs that the layers rounded before it leave. The chosen values become the float weights, which the plan then
    rounds to themselves. With `biases`, the mean that is still missing in each output channel goes into the layer's
    bias, and weights are chosen for what a bias cannot mend. Left alone are layers that share a weight.

    Memory: the activations of all samples that are still to be read, twice.

    Args:
        quantized: The model whose float weights are chosen.
        samples: Inputs.
        biases: Whether biases take the mean error.

    Returns:
        The number of layers whose rounding was learnt.
    """
    batches = list(samples)
    captured, module = quantized.simulator.captured, quantized.simulator.module
    layers = set(quantized_layers(module))
    exact, rounded = Stream(quantized, batches, rounding=False), Stream(quantized, batches, rounding=True)
    learnt, bias = 0, ""
    for node in module.graph.nodes:
        if node.op == "output":
            break
        exact.run(node)
        if node in layers:
            bias = bias_parameter(node, captured.state) if biases else ""
            learnt += _round_layer(node, quantized, exact, rounded, centered=bool(bias))
        rounded.run(node)
        if node in layers and bias:
            missing = _mean_difference(node, exact, rounded)
            quantized.model.get_parameter(bias).add_(missing)
            rounded.shift(node, missing)
        exact.forget(node)
        rounded.forget(node)
    return learnt


class Stream:
    """The values of all nodes that are still needed: a list over batches, or one value that depends on no input."""

    def __init__(self, quantized: QuantizedModel, batches: list[tuple[Tensor, ...]], rounding: bool) -> None:
        self.module, self.rounding = quantized.simulator.module, rounding
        captured = quantized.simulator.captured
        self.count = len(batches)
        self.given: dict[str, Any] = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in captured.arguments(quantized.model, None).items()
        }
        for position, name in enumerate(captured.inputs):
            self.given[name] = [inputs[position] for inputs in batches]
        self.values: dict[fx.Node, Any] = {}
        self.varying = {node for node in self.module.graph.nodes if node.name in captured.inputs}

    def run(self, node: fx.Node) -> None:
        """Compute one node for all batches."""
        if node.op == "placeholder":
            self.values[node] = self.given[node.name]
        elif self.varying.isdisjoint(node.all_input_nodes):
            self.values[node] = self._call(node, None)
        else:
            self.varying.add(node)
            self.values[node] = [self._call(node, batch) for batch in range(self.count)]

    def _call(self, node: fx.Node, batch: int | None) -> Any:
        def value(source: fx.Node) -> Any:
            return self.values[source][batch] if source in self.varying else self.values[source]

        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        if node.op == "call_module":
            return getattr(self.module, str(node.target))(*args) if self.rounding else args[0]
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def shift(self, layer: fx.Node, missing: Tensor) -> None:
        """Add to the outputs of a layer what has just been added to its bias."""
        trailing = self.values[layer][0].dim() - 2 if layer.target in CONVOLUTIONS else 0
        self.values[layer] = [value + missing.reshape(-1, *[1] * trailing) for value in self.values[layer]]

    def forget(self, node: fx.Node) -> None:
        """Free what nobody reads after this node."""
        for source in node.all_input_nodes:
            readers = [user for user in source.users if user not in self.values]
            if not readers and source.op != "placeholder":
                self.values[source] = None


def _round_layer(layer: fx.Node, quantized: QuantizedModel, exact: Stream, rounded: Stream, centered: bool) -> bool:
    rounding, x = layer.args[1], layer.args[0]
    assert isinstance(rounding, fx.Node)
    assert isinstance(x, fx.Node)
    source = rounding.args[0]
    assert isinstance(source, fx.Node)
    state = quantized.simulator.captured.state
    weight: Tensor = exact.values[rounding]
    name, factor = _parameter(source, state, exact.given)
    rows = rows_in_runtime_order(weight)
    if not name or rows.shape[1] > WIDEST:
        return False
    grid: Grid = getattr(quantized.simulator.module, str(rounding.target)).grid
    moments = layer_moments(layer, weight, exact.values[x], rounded.values[x], centered)
    groups = len(moments.quantized)
    paired = int(worst_pair(rows_in_runtime_order(rounded.values[rounding]) / step_of(rows, grid)).max()) <= LIMIT
    integers = learn_rounding(rows.reshape(groups, -1, rows.shape[1]), grid, moments, paired)
    chosen = (integers.reshape(rows.shape) * step_of(rows, grid)).reshape(weight.movedim(1, -1).shape).movedim(-1, 1)
    rounded.values[rounding] = chosen
    parameter = quantized.model.get_parameter(name)
    # A channel that its normalization silences has no weight that could be found back.
    parameter.copy_(torch.where(factor.abs() > _SMALLEST, chosen / factor, parameter))
    return True


def _parameter(weight: fx.Node, state: dict[str, str], given: dict[str, Any]) -> tuple[str, Tensor]:
    """Name the parameter behind a weight ('' where another layer reads it too), and what folding multiplies it by."""
    factor = torch.ones(())
    if weight.target is folded_weight:
        own = weight.args[0]
        assert isinstance(own, fx.Node)
        gamma, variance, eps = (given[n.name] if isinstance(n, fx.Node) else n for n in weight.args[1:])
        factor = folded_weight(torch.ones_like(given[own.name]), gamma, variance, eps)
        weight = own
    return (state.get(weight.name, "") if len(weight.users) == 1 else ""), factor


def layer_moments(
    layer: fx.Node, weight: Tensor, exact: list[Tensor], rounded: list[Tensor], centered: bool
) -> Moments:
    """Average the products of a layer's inputs over a fixed choice of at most 8192 vectors a batch.

    Args:
        layer: A convolution or linear layer of the graph.
        weight: Its weights.
        exact: Inputs of the exact model, a tensor a batch.
        rounded: Inputs of the quantized model.
        centered: Whether the mean is taken out, because a bias will take it.
    """
    generator = torch.Generator().manual_seed(0)
    cross = quantized = mean = rounded_mean = torch.zeros(())
    count = 0
    for x, x_rounded in zip(exact, rounded, strict=True):
        vectors, rounded_vectors = patches(layer, weight, x), patches(layer, weight, x_rounded)
        chosen = torch.randperm(vectors.shape[1], generator=generator)[:_VECTORS]
        vectors, rounded_vectors = vectors[:, chosen], rounded_vectors[:, chosen]
        count += len(chosen)
        cross = cross + vectors.transpose(1, 2) @ rounded_vectors
        quantized = quantized + rounded_vectors.transpose(1, 2) @ rounded_vectors
        mean, rounded_mean = mean + vectors.sum(1), rounded_mean + rounded_vectors.sum(1)
    moments = Moments(quantized / count, cross / count)
    if centered:
        mean, rounded_mean = mean / count, rounded_mean / count
        moments.quantized -= rounded_mean[:, :, None] * rounded_mean[:, None]
        moments.cross -= mean[:, :, None] * rounded_mean[:, None]
    return moments


def patches(layer: fx.Node, weight: Tensor, x: Tensor) -> Tensor:
    """Cut out what each output value of a layer is computed from: groups × vectors × K, in runtime order.

    Args:
        layer: A convolution or linear layer of the graph.
        weight: Its weights, out × (in / groups) × kernel… .
        x: Its input.
    """
    if layer.target not in CONVOLUTIONS:
        return x.reshape(1, -1, x.shape[-1])
    given = (layer.args[i] if len(layer.args) > i else default for i, default in _DEFAULTS)
    groups = int(str(layer.args[6])) if len(layer.args) > 6 else 1
    kernel, flat = weight.shape[2:], x.dim() == 3
    stride, padding, dilation = (_both_sides(*entry, flat) for entry in zip(given, (1, 0, 1), strict=True))
    if flat:
        x, kernel = x[:, :, None], torch.Size((1, *kernel))
    (up, down), (left, right) = _margins(padding, kernel, dilation)
    x = F.pad(x, (left, right, up, down))
    columns = F.unfold(x, tuple(kernel), dilation, 0, stride)
    taps = kernel.numel()
    columns = columns.reshape(len(x), groups, -1, taps, columns.shape[-1])
    return columns.permute(1, 0, 4, 3, 2).reshape(groups, -1, taps * columns.shape[2])


_DEFAULTS = ((3, (1,)), (4, (0,)), (5, (1,)))


def _both_sides(value: object, of_height: int, flat: bool) -> tuple[Any, Any]:
    """Spell out a setting of a convolution for height and width; a flat one has the width alone."""
    values: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if len(values) == 2:
        return values[0], values[1]
    return (of_height if flat and values[0] not in ("same", "valid") else values[0]), values[0]


def _margins(padding: tuple[Any, Any], kernel: torch.Size, dilation: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    if padding[0] == "valid":
        return (0, 0), (0, 0)
    if padding[0] == "same":
        missing = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in missing)
    return tuple((side, side) for side in padding)


def _mean_difference(layer: fx.Node, exact: Stream, rounded: Stream) -> Tensor:
    """How much each output channel is short of on average."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for value, value_rounded in zip(exact.values[layer], rounded.values[layer], strict=True):
        channel = 1 if layer.target in CONVOLUTIONS else value.dim() - 1
        others = [d for d in range(value.dim()) if d != channel]
        total = total + (value.double() - value_rounded.double()).sum(others)
        count += value.numel() // value.shape[channel]
    return (total / count).float()
