"""Cross-layer equalization: what one layer has too much of, the next one takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.quantization.capture import Captured, fixed_values
from adaptkit.quantization.fold import folded_norm
from adaptkit.quantization.placement import CONVOLUTIONS, LAYERS

aten = torch.ops.aten
# f(s · x) = s · f(x) for every s > 0, channel by channel.
_HOMOGENEOUS = {
    aten.relu.default, aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
    aten.dropout.default,
}  # fmt: skip
_PASSES = 20
_SETTLED = 1e-3


def equalizing_factors(first: Tensor, second: Tensor) -> Tensor:
    """Find the factors by which to divide the first layer's rows and to multiply the second one's columns: √(r₁ / r₂).

    Both then have the range √(r₁ r₂) in every channel (Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", equation 11). A channel that is dead on either side keeps its scale.

    Args:
        first: r₁: the largest magnitude in each output channel of the first layer.
        second: r₂: the largest magnitude in each input channel of the second.

    Example:
        >>> equalizing_factors(torch.tensor([8.0, 1.0, 0.0]), torch.tensor([2.0, 1.0, 1.0]))
        tensor([2., 1., 1.])
    """
    alive = (first > 0) & (second > 0)
    return torch.where(alive, torch.sqrt(first / torch.where(alive, second, 1.0)), 1.0)


@torch.no_grad()
def equalize(captured: Captured, model: nn.Module) -> int:
    """Equalize every pair of layers with nothing but ReLU and pooling between them, in place; outputs stay.

    Args:
        captured: The graph, normalizations folded.
        model: Holds the parameters, which change.

    Returns:
        The number of pairs.
    """
    pairs = [pair for node in captured.graph.nodes if (pair := _pair(node, captured)) is not None]
    for _ in range(_PASSES if pairs else 0):
        change = max(_equalize(pair, captured, model) for pair in pairs)
        if change < _SETTLED:
            break
    return len(pairs)


@dataclass(frozen=True)
class _Pair:
    """Names of the parameters: those whose first dimension is divided, and the one whose columns are multiplied."""

    first: fx.Node
    second: fx.Node
    divided: tuple[str, ...]
    multiplied: str


def _pair(first: fx.Node, captured: Captured) -> _Pair | None:
    if first.target not in LAYERS:
        return None
    second = first
    while len(second.users) == 1 and (second is first or second.target in _HOMOGENEOUS):
        second = next(iter(second.users))
    same_kind = (first.target in CONVOLUTIONS) == (second.target in CONVOLUTIONS)
    if second is first or second.target not in LAYERS or not same_kind or first in second.args[1:]:
        return None
    divided, multiplied = _output_side(first, captured), _own_weight(second, captured)
    return _Pair(first, second, divided, multiplied) if divided and multiplied else None


def _output_side(layer: fx.Node, captured: Captured) -> tuple[str, ...]:
    """Name what scales the outputs of a layer: γ and β, or weight and bias; nothing where another layer reads it."""
    own: list[Any] = list(layer.args[1:3])
    norm = folded_norm(layer) if len(own) == 2 else None
    read: list[Any] = own if norm is None else [norm.gamma, norm.beta]
    sources = [source for source in read if source is not None]
    mine = {layer, *own}
    if not all(source.name in captured.state and mine.issuperset(source.users) for source in sources):
        return ()
    # A normalization without γ scales nothing.
    return () if norm is not None and len(sources) < 2 else tuple(captured.state[source.name] for source in sources)


def _own_weight(layer: fx.Node, captured: Captured) -> str:
    norm = folded_norm(layer) if len(layer.args) > 2 else None
    weight: Any = layer.args[1] if norm is None else norm.weight
    return captured.state.get(weight.name, "") if len(weight.users) == 1 else ""


def _equalize(pair: _Pair, captured: Captured, model: nn.Module) -> float:
    """Equalize one pair; returns how far the largest factor was from 1."""
    values = fixed_values(captured, model)
    groups = int(str(pair.second.args[6])) if len(pair.second.args) > 6 else 1
    rows, columns = (values[str(layer.args[1])].abs() for layer in (pair.first, pair.second))
    columns = columns.reshape(groups, columns.shape[0] // groups, columns.shape[1], -1)
    factors = equalizing_factors(rows.flatten(1).amax(1), columns.amax((1, 3)).flatten())
    for name in pair.divided:
        parameter = model.get_parameter(name)
        parameter.div_(factors.reshape(-1, *[1] * (parameter.dim() - 1)))
    weight = model.get_parameter(pair.multiplied)
    spread = factors.reshape(groups, 1, -1, 1).expand_as(columns).reshape(weight.shape)
    weight.mul_(spread)
    return float((factors - 1).abs().max())
