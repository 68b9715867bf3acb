"""An order of input channels in which N of every M may stay and little is lost, and models brought into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.pruning.capture import copy_of
from adaptkit.pruning.channels import dependency_groups
from adaptkit.pruning.groups import Group, Slice

_ROUNDS = 600
_ROWS = 512
_LEAST_GAIN = 1e-4
_TOLERANCE = 1e-4


def kept_magnitude(columns: Tensor, n: int) -> Tensor:
    """Sum the n largest of the last dimension, then all rows.

    Args:
        columns: … × rows × m, magnitudes.
        n: How many stay.
    """
    m = columns.shape[-1]
    if n > m // 2:  # the smallest ones are fewer
        return columns.sum((-1, -2)) - columns.topk(m - n, dim=-1, largest=False).values.sum((-1, -2))
    return columns.topk(n, dim=-1).values.sum((-1, -2))


def find_permutation(magnitudes: Tensor, n: int, m: int) -> Tensor:
    """Find an order of columns that raises the magnitude kept when n of every m neighbours stay.

    Greedy exchange: stripes of m columns meet in pairs, every stripe every other one in turn, and of each pair the two
    columns change places that gain most, until a whole turn gains nothing (after Pool and Yu 2021, "Channel
    permutations for N:M sparsity", section 4). At most 512 rows are looked at.

    Args:
        magnitudes: rows × columns; the columns are a multiple of m.
        n: How many stay.
        m: Of how many neighbours.

    Returns:
        The column that comes to each place.

    Example:
        >>> weight = torch.tensor([[9.0, 8.0, 7.0, 6.0, 1.0, 1.0, 1.0, 1.0]])
        >>> order = find_permutation(weight, 2, 4)
        >>> float(kept_magnitude(weight[:, order].unflatten(1, (-1, 4)).movedim(1, 0), 2).sum())
        30.0
    """
    values = magnitudes.detach().float()[:: -(-len(magnitudes) // _ROWS)]
    stripes = torch.arange(values.shape[1]).reshape(-1, m)
    least = _LEAST_GAIN * float(values.mean())
    players, idle = len(stripes) + len(stripes) % 2, 0
    for number in range(_ROUNDS if players > 1 else 0):
        first, second = _pairs(number, players, len(stripes))
        gained = _exchange(values, stripes, first, second, n, least)
        idle = 0 if gained else idle + 1
        if idle >= players - 1:
            break
    return stripes.flatten()


def _pairs(number: int, players: int, stripes: int) -> tuple[Tensor, Tensor]:
    """Return who meets whom in a round of a round-robin tournament; the odd one out has no partner."""
    circle = torch.arange(players - 1).roll(number % (players - 1))
    ring = torch.cat([circle, torch.tensor([players - 1])])
    first, second = ring[: players // 2], ring[players // 2 :].flip(0)
    both = (first < stripes) & (second < stripes)
    return first[both], second[both]


def _exchange(values: Tensor, stripes: Tensor, first: Tensor, second: Tensor, n: int, least: float) -> bool:
    """Let each pair of stripes change the two columns that gain most, where more than `least`; say whether any did."""
    m = stripes.shape[1]
    left, right = values[:, stripes[first]].movedim(1, 0), values[:, stripes[second]].movedim(1, 0)
    now = kept_magnitude(left, n) + kept_magnitude(right, n)
    tried = kept_magnitude(_exchanged(left, right), n) + kept_magnitude(_exchanged(right, left), n).transpose(1, 2)
    best, place = tried.flatten(1).max(1)
    gains = best - now > least
    rows, others, i, j = first[gains], second[gains], place[gains] // m, place[gains] % m
    taken = stripes[rows, i].clone()
    stripes[rows, i] = stripes[others, j]
    stripes[others, j] = taken
    return bool(gains.any())


def _exchanged(stripes: Tensor, others: Tensor) -> Tensor:
    """Return, for each (i, j), a stripe with column j of the other in place of its column i: P × m × m × rows × m."""
    m = stripes.shape[2]
    result = stripes[:, None, None].expand(-1, m, m, -1, -1).clone()
    for i in range(m):
        result[:, i, :, :, i] = others.transpose(1, 2)
    return result


@dataclass(frozen=True)
class Gain:
    """What an order of channels has gained: the share of the magnitude that N:M keeps, before and after."""

    label: str
    before: float
    after: float


@torch.no_grad()
def permute_channels(
    model: nn.Module, example_inputs: tuple[Any, ...], names: set[str], n: int, m: int
) -> tuple[list[Gain], list[str]]:
    """Reorder interchangeable channels in place so that N:M keeps more; the model computes what it did.

    The channels of a group of the dependency engine change places in everything that makes or takes them at once. An
    order that would change the outputs on the example inputs is put back.

    Args:
        model: Edited.
        example_inputs: Inputs of one call, batch first.
        names: The weights that are to be N:M sparse.
        n: How many stay.
        m: Of how many.

    Returns:
        What was gained, and what was left alone and why.

    Raises:
        ModelError: torch.export cannot capture the model.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    gains, left = [], []
    # The engine takes attention apart to find heads; here the model is to keep its modules.
    for group in dependency_groups(copy_of(model), example_inputs).groups:
        columns = _columns(group, tensors, names, m)
        if columns is None or any(piece.name not in tensors for piece in group.slices):
            continue
        order = find_permutation(columns, n, m)
        before, after = _share(columns, n, m), _share(columns[:, order], n, m)
        if after <= before:
            continue
        if _reorder(model, group, tensors, order.numpy(), example_inputs):
            gains.append(Gain(group.label, before, after))
        else:
            left.append(f"{group.label}: its channels are not interchangeable, they keep their order")
    return gains, left


def _columns(group: Group, tensors: dict[str, Tensor], names: set[str], m: int) -> Tensor | None:
    """Stack the weights that take these channels side by side, one column a unit; None where stripes do not fit."""
    parts = [
        tensors[piece.name].detach().abs().movedim(1, -1)[..., torch.from_numpy(piece.indices[:, 0])].flatten(0, -2)
        for piece in group.slices
        if piece.name in names and piece.dim == 1 and not piece.makes and _aligned(piece, m)
    ]
    return torch.cat(parts) if parts else None


def _aligned(piece: Slice, m: int) -> bool:
    places = piece.indices
    if places.shape[1] != 1 or len(places) % m or int(places[0, 0]) % m:
        return False
    return bool((np.diff(places[:, 0]) == 1).all())


def _share(columns: Tensor, n: int, m: int) -> float:
    return float(
        kept_magnitude(columns.reshape(len(columns), -1, m).movedim(1, 0), n).sum() / columns.sum().clamp(min=1e-30)
    )


def _reorder(
    model: nn.Module, group: Group, tensors: dict[str, Tensor], order: NDArray[np.int64], inputs: tuple[Any, ...]
) -> bool:
    with evaluating(model):
        wanted = first_output(model(*inputs))
        _permute(group, tensors, order)
        found = first_output(model(*inputs))
    size = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    if wanted.shape == found.shape and bool((found - wanted).abs().max() <= _TOLERANCE * size):
        return True
    _permute(group, tensors, np.argsort(order))
    return False


def _permute(group: Group, tensors: dict[str, Tensor], order: NDArray[np.int64]) -> None:
    for piece in group.slices:
        tensor = tensors[piece.name]
        to, source = (torch.from_numpy(places.reshape(-1)) for places in (piece.indices, piece.indices[order]))
        tensor.index_copy_(piece.dim, to, tensor.index_select(piece.dim, source))
