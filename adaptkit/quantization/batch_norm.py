"""Statistics of folded normalizations, measured anew under rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, fx

from adaptkit.quantization.correct import quantized_layers
from adaptkit.quantization.fold import FoldedNorm, folded_norm, folded_weight
from adaptkit.quantization.reconstruct import Stream
from adaptkit.quantization.simulate import QuantizedModel

_SMALLEST = 1e-8


@torch.no_grad()
def reestimate(quantized: QuantizedModel, samples: Iterable[tuple[Tensor, ...]]) -> QuantizedModel:
    """Give every folded normalization the mean and variance that its layer has with rounded weights and inputs.

    With f = γ / √(σ² + ε) the folded layer returns y = f (ŵ∗x̂ − μ) + β, so that μ ← μ + (E[y] − β) / f and
    σ² ← Var[y] / f² − ε; the integers of the weights stay, their scales follow f. Layers are taken in order, each on
    what the new statistics of the others make of its inputs. A channel with γ = 0 or without variance keeps its own.

    Args:
        quantized: Its model's statistics are changed.
        samples: Inputs.

    Returns:
        The same model under a plan with the scales that follow.
    """
    stream = Stream(quantized, list(samples), rounding=True)
    tensors = dict(quantized.plan.tensors)
    layers = set(quantized_layers(quantized.simulator.module))
    for node in quantized.simulator.module.graph.nodes:
        if node.op == "output":
            break
        stream.run(node)
        norm = folded_norm(node) if node in layers and len(node.args) > 2 else None
        if norm is not None:
            ratio = _renew(node, norm, quantized, stream)
            for part in ("weight", "bias"):
                key = f"{node.name}.{part}"
                if key in tensors and tensors[key].axis is not None:
                    scale = torch.tensor(tensors[key].scale) * ratio
                    tensors[key] = dataclasses.replace(tensors[key], scale=tuple(scale.tolist()))
        stream.forget(node)
    return quantized.replanned(dataclasses.replace(quantized.plan, tensors=tensors))


def _renew(layer: fx.Node, norm: FoldedNorm, quantized: QuantizedModel, stream: Stream) -> Tensor:
    """Measure one layer; returns by how much its channels were scaled."""
    state = quantized.simulator.captured.state
    running_mean, running_variance = (quantized.model.get_buffer(state[n.name]) for n in (norm.mean, norm.variance))
    ones = torch.ones_like(running_mean)
    gamma = ones if norm.gamma is None else stream.given[norm.gamma.name]
    beta = torch.zeros_like(ones) if norm.beta is None else stream.given[norm.beta.name]
    factor = folded_weight(ones[:, None], gamma, running_variance, norm.eps)[:, 0]
    found_mean, found_variance = _statistics(stream.values[layer])
    alive = (factor.abs() > _SMALLEST) & (found_variance > _SMALLEST)
    safe = torch.where(alive, factor, 1.0).double()
    running_mean.copy_(torch.where(alive, running_mean + (found_mean - beta) / safe, running_mean))
    new_variance = (found_variance / safe**2 - norm.eps).clamp(min=0)
    running_variance.copy_(torch.where(alive, new_variance, running_variance))
    renewed = folded_weight(ones[:, None], gamma, running_variance, norm.eps)[:, 0]
    ratio = torch.where(alive, renewed / torch.where(alive, factor, 1.0), 1.0)
    offset = torch.where(alive, beta - found_mean.float() * ratio, 0.0)
    trailing = [1] * (stream.values[layer][0].dim() - 2)
    stream.values[layer] = [
        value * ratio.reshape(-1, *trailing) + offset.reshape(-1, *trailing) for value in stream.values[layer]
    ]
    return ratio


def _statistics(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel."""
    rows = [value.movedim(1, 0).flatten(1) for value in values]
    count = sum(row.shape[1] for row in rows)
    mean = torch.stack([row.sum(1, dtype=torch.float64) for row in rows]).sum(0) / count
    squares = torch.stack([(row - mean[:, None]).square().sum(1) for row in rows]).sum(0)
    return mean, squares / count
