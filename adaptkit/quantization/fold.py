"""Batch normalization folded into the convolution or linear layer before it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from adaptkit.quantization.capture import Captured

aten = torch.ops.aten
_LAYERS = {aten.conv1d.default, aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.linear.default}
_NORM = aten._native_batch_norm_legit_no_training.default


def folded_weight(weight: Tensor, gamma: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    """Scale the output channels: w · γ / √(σ² + ε).

    Args:
        weight: out × … .
        gamma: out, or None for ones.
        variance: out.
        eps: As in the normalization.

    Example:
        >>> folded_weight(torch.ones(1, 2), torch.tensor([6.0]), torch.tensor([4.0]), 0.0)
        tensor([[3., 3.]])
    """
    factor = torch.rsqrt(variance + eps)
    if gamma is not None:
        factor = factor * gamma
    return weight * factor.reshape(-1, *[1] * (weight.dim() - 1))


def folded_bias(
    bias: Tensor | None,
    norm: tuple[Tensor | None, Tensor | None, Tensor, Tensor],
    eps: float,
) -> Tensor:
    """Shift the output channels: (b − μ) · γ / √(σ² + ε) + β.

    Args:
        bias: out, or None for zeros.
        norm: γ, β (None for ones and zeros), μ, σ², each of length out.
        eps: As in the normalization.
    """
    gamma, beta, mean, variance = norm
    shifted = (-mean if bias is None else bias - mean) * torch.rsqrt(variance + eps)
    if gamma is not None:
        shifted = shifted * gamma
    return shifted if beta is None else shifted + beta


def fold_graph(captured: Captured) -> None:
    """Fold, in a captured graph, every normalization that alone follows a layer; the others stay as one operation.

    In evaluation mode γ (w∗x + b − μ) / √(σ² + ε) + β is a convolution again (Jacob et al. 2018, "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2). The folded weights are
    computed from the parameters in the graph, so that gradients reach all of them, and so that a layer that runs twice
    is folded once for each time.
    """
    graph = captured.graph
    for layer, norm in foldable(graph):
        gamma, beta, mean, variance, _, eps = norm.args[1:]
        bias = layer.args[2] if len(layer.args) > 2 else None
        with graph.inserting_before(layer):
            weight = graph.call_function(folded_weight, (layer.args[1], gamma, variance, eps))
            shift = graph.call_function(folded_bias, (bias, (gamma, beta, mean, variance), eps))
        layer.args = (layer.args[0], weight, shift, *layer.args[3:])
        _replace(norm, layer)
    for norm in [node for node in graph.nodes if node.target == _NORM]:
        x, gamma, beta, mean, variance, momentum, eps = norm.args
        with graph.inserting_before(norm):
            whole = graph.call_function(F.batch_norm, (x, mean, variance, gamma, beta, False, momentum, eps))
            whole.meta = dict(norm.meta)
        _replace(norm, whole)
    graph.lint()


@dataclass(frozen=True)
class FoldedNorm:
    """What the folding of a layer reads.

    Args:
        weight: The layer's own weight.
        gamma: γ, None for ones.
        beta: β, None for zeros.
        mean: μ.
        variance: σ².
        eps: As in the normalization.
    """

    weight: fx.Node
    gamma: fx.Node | None
    beta: fx.Node | None
    mean: fx.Node
    variance: fx.Node
    eps: float


def folded_norm(layer: fx.Node) -> FoldedNorm | None:
    """Find the normalization that was folded into a layer, behind the rounding of weight and bias if there is any."""
    parts: list[Any] = list(layer.args[1:3])
    weight, bias = (part.args[0] if part is not None and part.op == "call_module" else part for part in parts)
    if weight.target is not folded_weight:
        return None
    gamma, beta, mean, variance = bias.args[1]
    return FoldedNorm(weight.args[0], gamma, beta, mean, variance, float(bias.args[2]))


def foldable(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """List the pairs (layer, normalization) where nobody else reads the layer."""
    pairs = []
    for norm in graph.nodes:
        layer = norm.args[0] if norm.target == _NORM else None
        if isinstance(layer, fx.Node) and layer.target in _LAYERS and len(layer.users) == 1 and _same_channel(layer):
            pairs.append((layer, norm))
    return pairs


def _same_channel(layer: fx.Node) -> bool:
    """Say whether a normalization behind it counts the layer's outputs as channels: dimension 1, not tokens."""
    return layer.target is not aten.linear.default or layer.meta["val"].dim() == 2


def _replace(norm: fx.Node, by: fx.Node) -> None:
    for user in list(norm.users):
        assert user.target is operator.getitem, user.format_node()
        user.replace_all_uses_with(by)
        norm.graph.erase_node(user)
    norm.graph.erase_node(norm)
