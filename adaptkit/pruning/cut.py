"""Cutting: parameters, buffers, and the attributes that hold sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptkit.pruning.attention import SplitAttention
from adaptkit.pruning.values import Value
from adaptkit.pruning.walk import all_tensors

Kept = Callable[[Any], NDArray[np.bool_]]
"""Maps ids to whether each stays."""


@dataclass(frozen=True)
class Attribute:
    """A number that a module holds: `getattr(module, name)`, or its element `index`.

    Args:
        module: Path of the module.
        name: The attribute.
        index: The element, where the attribute is a tuple or list.
    """

    module: str
    name: str
    index: int | None = None

    def read(self, model: nn.Module) -> int:
        """Return the number."""
        held = getattr(model.get_submodule(self.module), self.name)
        return int(held if self.index is None else held[self.index])

    def write(self, model: nn.Module, number: int) -> None:
        """Replace the number."""
        module = model.get_submodule(self.module)
        if self.index is None:
            setattr(module, self.name, number)
            return
        held = getattr(module, self.name)
        items = list(held)
        items[self.index] = number
        setattr(module, self.name, type(held)(items))


def cut_tensors(model: nn.Module, tensors: Mapping[str, Value], kept: Kept, hollow: bool = False) -> None:
    """Keep some indices of parameters and buffers, in place of the old tensors.

    Args:
        model: Edited.
        tensors: Ids of every tensor.
        kept: Which ids stay.
        hollow: Only shapes matter, so that nothing need be copied.
    """
    uses = Counter(id(tensor) for _, tensor in all_tensors(model))
    done: dict[int, Any] = {}
    for name in [name for name, _ in all_tensors(model)]:
        parent, _, key = name.rpartition(".")
        module = model.get_submodule(parent)
        tensor = getattr(module, key)
        masks = {block.dims[0]: kept(block.ids) for block in tensors[name].blocks}
        if all(mask.all() for mask in masks.values()):
            continue
        result, _ = done.get(id(tensor)) or (_cut(tensor, masks, hollow), tensor)
        if uses[id(tensor)] > 1:
            # Only what is tied is kept: the old tensors of a large model must go one by one.
            done[id(tensor)] = result, tensor
        setattr(module, key, result)


def _cut(tensor: Tensor, masks: Mapping[int, NDArray[np.bool_]], hollow: bool) -> Tensor:
    result = tensor.detach()
    for dim, mask in masks.items():
        if hollow:
            result = result.narrow(dim, 0, int(mask.sum()))
        elif not mask.all():
            result = result.index_select(dim, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
    return nn.Parameter(result, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def follow_known(model: nn.Module, counted: Mapping[tuple[str, str], int]) -> None:
    """Set the size attributes of known module types from their tensors.

    Args:
        model: Edited; its tensors are cut already.
        counted: New value of the numbers in calls that no tensor shows, by module path and argument: groups.
    """
    for path, module in model.named_modules():
        for kind, follow in _FOLLOW.items():
            if isinstance(module, kind):
                follow(module, {argument: number for (owner, argument), number in counted.items() if owner == path})
                break


def has_rule(module: nn.Module) -> bool:
    """Say whether `follow_known` sets the attributes of modules of this type."""
    return any(isinstance(module, kind) for kind in _FOLLOW)


def is_known(module: nn.Module, argument: str) -> bool:
    """Say whether `follow_known` looks after this argument of the calls in the module's forward."""
    if isinstance(module, SplitAttention):
        return True
    return any(isinstance(module, kind) and argument in names for kind, names in _COVERED.items())


def _convolution(module: Any, counted: Mapping[str, int]) -> None:
    module.groups = counted.get("groups", module.groups)
    first, second = module.weight.shape[:2]
    inner = second * module.groups
    module.out_channels, module.in_channels = (inner, first) if module.transposed else (first, inner)


def _linear(module: Any, _: Mapping[str, int]) -> None:
    module.out_features, module.in_features = module.weight.shape


def _batch_norm(module: Any, _: Mapping[str, int]) -> None:
    held = module.weight if module.weight is not None else module.running_mean
    if held is not None:
        module.num_features = len(held)


def _layer_norm(module: Any, counted: Mapping[str, int]) -> None:
    if "normalized_shape" in counted:
        module.normalized_shape = (counted["normalized_shape"],)


def _group_norm(module: Any, counted: Mapping[str, int]) -> None:
    module.num_groups = counted.get("num_groups", module.num_groups)
    if module.weight is not None:
        module.num_channels = len(module.weight)


def _embedding(module: Any, _: Mapping[str, int]) -> None:
    module.embedding_dim = module.weight.shape[1]


def _prelu(module: Any, _: Mapping[str, int]) -> None:
    module.num_parameters = len(module.weight)


def _recurrent(module: Any, _: Mapping[str, int]) -> None:
    module.hidden_size, module.input_size = module.weight_hh_l0.shape[1], module.weight_ih_l0.shape[1]


def _recurrent_cell(module: Any, _: Mapping[str, int]) -> None:
    module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


def _attention(module: Any, _: Mapping[str, int]) -> None:
    module.follow()


_FOLLOW: dict[type[nn.Module], Callable[[Any, Mapping[str, int]], None]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent_cell,
    SplitAttention: _attention,
}

_COVERED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("groups",),
    nn.LayerNorm: ("normalized_shape",),
    nn.RMSNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_groups",),
    nn.RNNBase: ("size",),
    nn.RNNCellBase: ("size",),
}
