"""Layer by layer: sparse weights whose outputs match the original ones, without training and without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.modes import evaluating
from adaptkit.progress import Progress
from adaptkit.pruning.capture import copy_of
from adaptkit.pruning.layers import first_input
from adaptkit.pruning.projections import ConstraintSet

_POSITIONS = 256
"""Output positions of a sample that are looked at."""
_BATCH = 16
_DAMPING = 1e-4
_POLISHING = 50


@dataclass(frozen=True)
class Solution:
    """A sparse weight.

    Args:
        weight: In its set.
        error: ‖W X − Y‖ / ‖Y‖ at the end.
        residuals: rounds × (primal ‖W − Z‖ / ‖W‖, dual ρ ‖Z − Z_before‖ / ‖W‖).
    """

    weight: Tensor
    error: float
    residuals: Tensor


@dataclass
class Statistics:
    """Sums over samples of a layer with weight groups × out × K.

    Args:
        gram: Σ x xᵀ, groups × K × K.
        cross: Σ y xᵀ, groups × out × K.
        energy: Σ y².
    """

    gram: Tensor
    cross: Tensor
    energy: float

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in samples: groups × K × samples, groups × out × samples."""
        x, y = x.double(), y.double()
        self.gram += x @ x.mT
        self.cross += y @ x.mT
        self.energy += float(y.square().sum())

    def error(self, weight: Tensor) -> float:
        """Return ‖W X − Y‖ / ‖Y‖."""
        squares = float((weight @ self.gram * weight).sum() - 2 * (weight * self.cross).sum()) + self.energy
        return float((max(squares, 0.0) / max(self.energy, 1e-30)) ** 0.5)


def solve(
    statistics: Statistics, weight: Tensor, constraint: ConstraintSet, rho: float, growth: float, rounds: int
) -> Solution:
    """Minimise ½ ‖W X − Y‖² over a set by ADMM, each step exactly, then by conjugate gradients on what stays.

    W ← (Y Xᵀ + ρ (Z − U)) (X Xᵀ + ρ I)⁻¹, Z ← Π(W + U), U ← U + W − Z, in float64 (Zhan et al. 2021, "A
    privacy-preserving-oriented DNN pruning and mobile acceleration framework", section 3, where the first step is by
    gradient descent).

    Args:
        statistics: X Xᵀ and Y Xᵀ.
        weight: The weight to start from, in its own shape; its entries are groups × out × K.
        constraint: The set.
        rho: The first ρ, in units of the mean of the diagonal of X Xᵀ.
        growth: Factor of ρ from round to round.
        rounds: How many.
    """
    groups, width = statistics.gram.shape[0], statistics.gram.shape[-1]
    scale = statistics.gram.diagonal(dim1=-2, dim2=-1).mean().clamp(min=1e-30)
    gram, cross = statistics.gram / scale, statistics.cross / scale
    eye = torch.eye(width, dtype=torch.float64)
    w = weight.detach().double().reshape(groups, -1, width)
    z, u = constraint.project(w.reshape(weight.shape)).reshape(w.shape), torch.zeros_like(w)
    residuals = torch.zeros(rounds, 2, dtype=torch.float64)
    for number in range(rounds):
        factor = torch.linalg.cholesky(gram + (rho + _DAMPING) * eye)
        w = torch.cholesky_solve((cross + rho * (z - u) + _DAMPING * w).mT, factor).mT
        before = z
        z = constraint.project((w + u).reshape(weight.shape)).reshape(w.shape)
        u = (u + w - z) / growth
        norm = w.norm().clamp(min=1e-30)
        residuals[number] = torch.stack([(w - z).norm() / norm, rho * (z - before).norm() / norm])
        rho *= growth
    mask = constraint.mask(w.reshape(weight.shape)).reshape(w.shape)
    w = _polish(gram + _DAMPING * eye, cross + _DAMPING * w * mask, w * mask, mask)
    return Solution(w.reshape(weight.shape).to(weight.dtype), statistics.error(w), residuals)


def _polish(gram: Tensor, cross: Tensor, start: Tensor, mask: Tensor) -> Tensor:
    """Solve W G = C where the mask is true, row by row, by conjugate gradients."""
    w = start
    r = (cross - w @ gram) * mask
    p, before = r, r.square().sum(-1, keepdim=True)
    for _ in range(_POLISHING):
        q = (p @ gram) * mask
        step = before / (p * q).sum(-1, keepdim=True).clamp(min=1e-300)
        w, r = w + step * p, r - step * q
        now = r.square().sum(-1, keepdim=True)
        p, before = r + now / before.clamp(min=1e-300) * p, now
    return w


def matchable(
    model: nn.Module, weights: Mapping[str, nn.Parameter], example_inputs: tuple[Any, ...]
) -> dict[str, nn.Parameter]:
    """Pick the weights of linear layers and two-dimensional convolutions that run in a call of the model.

    Args:
        model: Left as it was.
        weights: By name.
        example_inputs: Inputs of a call.
    """
    kinds = (nn.Linear, nn.Conv2d)
    candidates = {name for name in weights if isinstance(model.get_submodule(name.rpartition(".")[0]), kinds)}
    with evaluating(model), torch.no_grad():
        run = _call_order(model, {name.rpartition(".")[0] for name in candidates}, *example_inputs)
    return {name: weight for name, weight in weights.items() if name in candidates and name.rpartition(".")[0] in run}


@torch.no_grad()
def match_layers(
    model: nn.Module,
    sets: Mapping[str, ConstraintSet],
    x: Tensor,
    admm: tuple[float, float, int],
    progress: Progress,
) -> dict[str, Solution]:
    """Make the weights of a model sparse in place, one layer after the other in the order in which they run.

    Each layer gets the inputs that the sparse layers before it make of `x`, and is to return what the original one
    returns: min ‖W X' − Y‖ in Frobenius norm over its set. Layers are linear or two-dimensional convolutions.

    Args:
        model: Edited.
        sets: The set of each weight, by its name.
        x: Inputs, batch first.
        admm: ρ, its growth and the number of rounds, as in `solve`.
        progress: Shows the layers done.

    Returns:
        The solution of each weight.
    """
    original = copy_of(model)
    solutions: dict[str, Solution] = {}
    with evaluating(model), evaluating(original):
        order = _call_order(model, {name.rpartition(".")[0] for name in sets}, x[:2])
        for number, path in enumerate(order):
            module = model.get_submodule(path)
            assert isinstance(module, nn.Linear | nn.Conv2d)
            statistics = _gather(model, original, path, x)
            solutions[f"{path}.weight"] = found = solve(statistics, module.weight, sets[f"{path}.weight"], *admm)
            module.weight.copy_(found.weight)
            progress.update(number + 1, len(order), path)
    progress.close()
    return solutions


def _call_order(model: nn.Module, paths: set[str], *inputs: Tensor) -> list[str]:
    order: list[str] = []
    handles = []
    for path in sorted(paths):

        def remember(*_: Any, path: str = path) -> None:
            order.append(path)

        handles.append(model.get_submodule(path).register_forward_pre_hook(remember))
    try:
        model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


def _gather(model: nn.Module, original: nn.Module, path: str, x: Tensor) -> Statistics:
    """Run both models; sum over what goes into a layer of the one and comes out of it in the other."""
    module = model.get_submodule(path)
    assert isinstance(module, nn.Linear | nn.Conv2d)
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    out, width = module.weight.shape[0] // groups, module.weight[0].numel()
    gram, cross = torch.zeros(groups, width, width), torch.zeros(groups, out, width)
    statistics = Statistics(gram.double(), cross.double(), 0.0)
    given: list[Tensor] = []
    wanted: list[Tensor] = []
    hooks = [
        # Copies, since what comes next may work in place.
        module.register_forward_pre_hook(
            lambda _, args, kwargs: given.append(first_input(args, kwargs).clone()), with_kwargs=True
        ),
        original.get_submodule(path).register_forward_hook(lambda *call: wanted.append(call[2].clone())),
    ]
    try:
        for batch in x.split(_BATCH):  # type: ignore[no-untyped-call]
            given.clear()
            wanted.clear()
            model(batch)
            original(batch)
            for one, other in zip(given, wanted, strict=True):
                statistics.add(_columns(module, one), _outputs(module, other))
    finally:
        for hook in hooks:
            hook.remove()
    return statistics


def _columns(module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Return what each output is a product of: groups × K × samples."""
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).mT
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode)
    columns = F.unfold(x, module.kernel_size, module.dilation, 0, module.stride)
    return _by_group(columns, module.groups)


def _outputs(module: nn.Linear | nn.Conv2d, y: Tensor) -> Tensor:
    """Return the outputs without the bias: groups × out × samples, in the order of `_columns`."""
    if isinstance(module, nn.Linear):
        y = y if module.bias is None else y - module.bias
        return y.reshape(1, -1, y.shape[-1]).mT
    y = y if module.bias is None else y - module.bias[:, None, None]
    return _by_group(y.flatten(2), module.groups)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """Turn samples × channels × positions into groups × channels of each × samples, with some positions of each."""
    some = values[..., :: -(-values.shape[-1] // _POSITIONS)]
    return some.reshape(len(some), groups, -1, some.shape[-1]).movedim(0, -2).flatten(-2)
