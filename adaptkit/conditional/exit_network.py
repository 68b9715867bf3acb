"""A network with answers on the way: the trunk as it was, and a small head at each exit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.metrics.task import first_output


class ExitNetwork(nn.Module):
    """A model that answers at exits, too.

    Args:
        trunk: Any classifier.
        heads: By the path of the module of the trunk whose output a head takes, in the order they run.
        frozen: Only the heads train; the trunk stays as it is, its statistics too.

    Example:
        >>> trunk = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> final, early = ExitNetwork(trunk, {"1": nn.Linear(8, 3)})(torch.zeros(2, 4))
        >>> final.shape, early.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module], frozen: bool = False) -> None:
        super().__init__()
        self.trunk, self.points, self.frozen = trunk, tuple(heads), frozen
        self.heads = nn.ModuleList(heads.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the trunk's answer, and then those of the exits in order: each N × classes."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen), tapped(self.trunk, self.points) as on:
            final = first_output(self.trunk(x))
        return final, *(head(on[point]) for point, head in zip(self.points, self.heads, strict=True))

    def train(self, mode: bool = True) -> ExitNetwork:
        """Set the mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.train(mode and not self.frozen)
        return self

    def keep(self, points: tuple[str, ...]) -> ExitNetwork:
        """Return a network with some of the exits, on the same modules."""
        heads = dict(zip(self.points, self.heads, strict=True))
        return ExitNetwork(self.trunk, {point: heads[point] for point in points}, self.frozen).train(self.training)


@contextmanager
def tapped(model: nn.Module, paths: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Collect what modules put out, by path, for as long as the context lasts."""
    taken: dict[str, Tensor] = {}

    def take(path: str, output: Any) -> None:
        taken[path] = output

    handles = [
        model.get_submodule(path).register_forward_hook(lambda _, __, output, path=path: take(path, output))
        for path in paths
    ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()
