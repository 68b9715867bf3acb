"""Three ways to remove channels until a share of the multiply-accumulates is left: ours and the peers'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from adaptkit.profiling.macs import count_macs

ROUND_TO = 8
FINE = 4
_STEPS = 12
Pruner = Callable[[nn.Module, Tensor, float], nn.Module]


def torch_pruning(module: ModuleType, by_hand: bool) -> Pruner:
    """Give Torch-Pruning's group magnitude pruner, global.

    Args:
        module: The package.
        by_hand: Whether layers are excepted that it breaks on: all that write into a residual stream.
    """

    def prune(model: nn.Module, example: Tensor, share: float) -> nn.Module:
        def cut(ratio: float) -> nn.Module:
            small = copy.deepcopy(model)
            ignored = [each for name, each in small.named_modules() if _is_excepted(name, each, by_hand)]
            importance = module.importance.GroupMagnitudeImportance(p=2)
            module.BasePruner(
                small, example, importance, global_pruning=True, pruning_ratio=ratio, round_to=FINE,
                ignored_layers=ignored, max_pruning_ratio=0.9,
            ).step()  # fmt: skip
            return small

        return _searched(cut, model, example, share)

    return prune


def layer_by_layer(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """Remove filters of the smallest L1 norm in one shot, the same share in every layer, as NNI's L1FilterPruner did.

    NNI is no longer maintained; this is its algorithm for residual networks, by Li et al. 2017, "Pruning filters for
    efficient convnets", section 3.4: only the first convolution of each block loses filters.
    """

    def cut(ratio: float) -> nn.Module:
        small = copy.deepcopy(model)
        for block in small.modules():
            if all(hasattr(block, part) for part in ("conv1", "bn1", "conv2")) and block is not small:
                _narrow(block, ratio)
        return small

    return _searched(cut, model, example, share)


def _is_excepted(name: str, module: nn.Module, by_hand: bool) -> bool:
    if isinstance(module, nn.Linear):
        return True
    stream = name.endswith("conv2") or name in ("conv1", "stem.0") or "shortcut" in name
    return by_hand and isinstance(module, nn.Conv2d) and stream


def _narrow(block: nn.Module, ratio: float) -> None:
    """Take filters out of a block's first convolution, and what belongs to them out of the next two layers."""
    first, norm, second = block.conv1, block.bn1, block.conv2
    assert isinstance(first, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(second, nn.Conv2d)
    count = max(ROUND_TO, round(first.out_channels * (1 - ratio) / ROUND_TO) * ROUND_TO)
    kept = first.weight.abs().sum((1, 2, 3)).topk(count).indices.sort().values
    with torch.no_grad():
        first.weight = nn.Parameter(first.weight[kept])
        second.weight = nn.Parameter(second.weight[:, kept])
        norm.weight, norm.bias = nn.Parameter(norm.weight[kept]), nn.Parameter(norm.bias[kept])
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    first.out_channels = norm.num_features = second.in_channels = count


def _searched(cut: Callable[[float], nn.Module], model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """Find the ratio that comes nearest to the share of multiply-accumulates, by halving."""
    whole = count_macs(model, (example,)).total
    low, high, best, apart = 0.0, 0.95, model, float("inf")
    for _ in range(_STEPS):
        ratio = (low + high) / 2
        small = cut(ratio)
        left = count_macs(small, (example,)).total / whole
        if abs(left - share) < apart:
            best, apart = small, abs(left - share)
        low, high = (ratio, high) if left > share else (low, ratio)
    return best
