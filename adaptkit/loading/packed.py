"""Sparse weights in a state dict: one bit an entry and the values that are not zero."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import ModelError

_MASK = "#mask"
_VALUES = "#values"


def pack(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Store some tensors as bits (1: not zero, eight to a byte, first entry highest) and values, where that is smaller.

    Args:
        state: A state dict.
        names: Which tensors.

    Example:
        >>> packed = pack({"weight": torch.tensor([0.0, 2.0, 0.0, 0.0])}, ["weight"])
        >>> packed["weight#mask"], packed["weight#values"]
        (tensor([64], dtype=torch.uint8), tensor([2.]))
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stays = tensor != 0
        size = tensor.element_size()
        if name not in names or int(stays.sum()) * size + tensor.numel() / 8 >= tensor.numel() * size:
            packed[name] = tensor
            continue
        packed[name + _MASK] = torch.from_numpy(np.packbits(stays.cpu().numpy()))
        packed[name + _VALUES] = tensor[stays]
    return packed


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Undo `pack`.

    Args:
        packed: What `pack` made.
        shapes: Of the tensors, by name.

    Raises:
        ModelError: The model has no tensor of that name or size.
    """
    state = {name: tensor for name, tensor in packed.items() if not name.endswith((_MASK, _VALUES))}
    for key in packed:
        if not key.endswith(_MASK):
            continue
        name = key.removesuffix(_MASK)
        values, bits = packed[name + _VALUES], packed[key]
        count = shapes[name].numel() if name in shapes else -1
        if -(-count // 8) != bits.numel():
            raise ModelError(f"the saved {name} does not fit the model; pass the builder of the model that was saved")
        stays = torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).bool()
        tensor = torch.zeros(count, dtype=values.dtype)
        tensor[stays] = values
        state[name] = tensor.reshape(shapes[name])
    return state
