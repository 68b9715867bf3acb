"""Layers of a model that may be replaced, and the sequences that replace them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptkit.factorization.schemes import Ranks, Scheme
from adaptkit.modes import evaluating
from adaptkit.profiling.layer_latency import LayerShape, layer_shapes
from adaptkit.pruning.masks import MARK
from adaptkit.surgery import replace_module


@dataclass(frozen=True)
class Candidate:
    """A layer that may be replaced.

    Args:
        name: Its path.
        layer: An nn.Conv2d of one group or an nn.Linear.
        shape: As the model calls it.
        scheme: How it is to be taken apart.
        whitening: A square root of the second moment of its inputs, and its inverse; None weighs all inputs alike.
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    shape: LayerShape
    scheme: Scheme
    whitening: tuple[Tensor, Tensor] | None = None

    def weight(self) -> Tensor:
        """Return what is to be approximated: the weight, at least in single precision, times the whitening."""
        weight = self.layer.weight.detach()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return weight if self.whitening is None else on_inputs(weight, self.whitening[0])

    def factors(self, ranks: Ranks) -> tuple[list[Tensor], float]:
        """Return the weights of the new layers and the relative error ‖W − W'‖ / ‖W‖ of the (whitened) weight."""
        weight = self.weight()
        factors = self.scheme.factors(weight, ranks)
        error = float((self.scheme.compose(factors) - weight).norm() / weight.norm().clamp(min=1e-30))
        if self.whitening is not None:
            factors[0] = on_inputs(factors[0], self.whitening[1])
        return factors, error


def on_inputs(weight: Tensor, matrix: Tensor) -> Tensor:
    """Multiply a weight by a symmetric matrix in the dimension of its inputs, the second.

    Example:
        >>> on_inputs(torch.ones(1, 2, 1, 1), torch.diag(torch.tensor([2.0, 3.0]))).flatten()
        tensor([2., 3.])
    """
    return (weight.movedim(1, -1) @ matrix.to(weight)).movedim(-1, 1)


def sort_out(
    model: nn.Module, found: Mapping[str, nn.Module], example_inputs: tuple[Tensor, ...]
) -> tuple[dict[str, LayerShape], dict[str, str]]:
    """Separate the convolutions and linear layers that may be replaced from those that must be left alone.

    Args:
        model: Run once.
        found: The modules that the patterns name.
        example_inputs: Inputs of one call, batch first.

    Returns:
        The shapes of the ones, and for each of the others the reason.
    """
    shapes = layer_shapes(model, example_inputs)
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    paths = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    free: dict[str, LayerShape] = {}
    reasons: dict[str, str] = {}
    for name, module in found.items():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        if type(module) not in (nn.Conv2d, nn.Linear):
            reasons[name] = f"a {type(module).__name__} is not a plain layer"
        elif "weight" not in module._parameters:
            reasons[name] = "its weight is computed from others"
        elif paths[id(module)] > 1 or owners[id(module.weight)] > 1:
            reasons[name] = "it is shared"
        elif name not in shapes:
            reasons[name] = "the model never calls it"
        elif not bool(torch.isfinite(module.weight).all()):
            reasons[name] = "its weight holds NaN or infinity"
        elif "weight" in getattr(module, MARK, ()):
            reasons[name] = "its weight is sparse, which the factors would not be"
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            reasons[name] = "it is a grouped convolution"
        else:
            free[name] = shapes[name]
    for name in _read_by_others(model, free, example_inputs):
        reasons[name] = "the model reads its weight itself"
        del free[name]
    return free, reasons


def _read_by_others(model: nn.Module, names: Iterable[str], example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Name the layers without whose attributes the model fails, as it would after they were replaced."""
    names = list(names)
    if _runs_in_sequences(model, names, example_inputs):
        return []
    return [name for name in names if not _runs_in_sequences(model, [name], example_inputs)]


def _runs_in_sequences(model: nn.Module, names: Iterable[str], example_inputs: tuple[Tensor, ...]) -> bool:
    layers = {name: model.get_submodule(name) for name in names}
    try:
        with evaluating(model), torch.no_grad():
            for name, layer in layers.items():
                replace_module(model, name, nn.Sequential(layer))
            model(*example_inputs)
    except Exception:  # whatever the model's own code makes of a layer without its attributes
        return False
    finally:
        for name, layer in layers.items():
            replace_module(model, name, layer)
    return True


def no_smaller(layer: LayerShape, parts: Sequence[LayerShape]) -> bool:
    """Say whether replacing a layer would save no weights, or no multiply-accumulates.

    Example:
        >>> whole = LayerShape("linear", 8, 8)
        >>> no_smaller(whole, [LayerShape("linear", 8, 4), LayerShape("linear", 4, 8)])
        True
    """
    return sum(part.weights for part in parts) >= layer.weights or sum(part.macs for part in parts) >= layer.macs


def build(layer: nn.Conv2d | nn.Linear, shapes: Sequence[LayerShape], factors: Sequence[Tensor]) -> nn.Sequential:
    """Make the sequence that replaces a layer; the last part has its bias, those with a kernel its padding.

    Args:
        layer: The original.
        shapes: Its parts.
        factors: Their weights.
    """
    parts = [_empty(layer, shape) for shape in shapes]
    for part, factor in zip(parts, factors, strict=True):
        part.weight = _like(factor.contiguous(), layer.weight)
    if layer.bias is not None:
        parts[-1].bias = _like(layer.bias.detach().clone(), layer.bias)
    return nn.Sequential(*parts)


def _empty(layer: nn.Conv2d | nn.Linear, shape: LayerShape) -> nn.Conv2d | nn.Linear:
    if isinstance(layer, nn.Linear):
        return nn.Linear(shape.in_channels, shape.out_channels, bias=False, device="meta")
    return nn.Conv2d(
        shape.in_channels,
        shape.out_channels,
        shape.kernel,
        shape.stride,
        # "same" is uneven where a kernel is even, which the numbers of a shape cannot say.
        layer.padding if isinstance(layer.padding, str) else shape.padding,
        shape.dilation,
        shape.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )


def _like(values: Tensor, original: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(original), requires_grad=original.requires_grad)
