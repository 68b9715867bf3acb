"""What a ReLU behind a sum leaves of the operands: the rest needs no integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx

from adaptkit.quantization.placement import CLIPS, aten

_AT_ZERO = {aten.relu.default, aten.relu6.default}


def rectified(operand: Tensor, other: Tensor) -> Tensor:
    """Raise an operand to where the sum's ReLU gives zero just so: a′ = max(a, −max(b, 0)).

    relu(a′ + b′) = relu(a′ + b) = relu(a + b), whatever a and b are. The branch of a residual block reaches far below
    zero where the shortcut is zero, and all of that is cut off.

    Args:
        operand: a.
        other: b, of a shape that adds to it.

    Example:
        >>> rectified(torch.tensor([-5.0, -5.0, 1.0, -1.0]), torch.tensor([2.0, -2.0, -3.0, 4.0]))
        tensor([-2., -0.,  1., -1.])
    """
    return torch.maximum(operand, -torch.relu(other))


def rectified_operands(graph: fx.Graph) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """List the sums that only a ReLU reads, or a Clip from zero on, each with those operands that nothing else reads.

    Args:
        graph: A captured graph.
    """
    found = {}
    for node in graph.nodes:
        if node.target != aten.add.Tensor or node.kwargs or not _cut_at_zero(node):
            continue
        operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
        if len(set(operands)) == 2:
            found[node] = tuple(operand for operand in operands if len(operand.users) == 1)
    return {node: operands for node, operands in found.items() if operands}


def _cut_at_zero(node: fx.Node) -> bool:
    if len(node.users) != 1:
        return False
    clip = next(iter(node.users))
    return clip.target in _AT_ZERO or (clip.target in CLIPS and clip.args[1:2] == (0,))


class Rectifier:
    """Hands every value of a graph on, operands of rectified sums as what counts of them, once the sum is there.

    Args:
        sums: As from `rectified_operands`.
        record: Called with every node and its value.
    """

    def __init__(self, sums: Mapping[fx.Node, tuple[fx.Node, ...]], record: Callable[[fx.Node, Tensor], None]) -> None:
        self._sums, self._record = sums, record
        self._late = {operand for operands in sums.values() for operand in operands}
        self._wanted = {operand for node in sums for operand in node.all_input_nodes}
        self._values: dict[fx.Node, Tensor] = {}

    def __call__(self, node: fx.Node, value: Tensor) -> None:
        """Take a node's value, in the order of the graph."""
        if node in self._wanted:
            self._values[node] = value
        if node not in self._late:
            self._record(node, value)
        for operand in self._sums.get(node, ()):
            (other,) = (source for source in node.all_input_nodes if source is not operand)
            self._record(operand, rectified(self._values[operand], self._values[other]))
        if node in self._sums:
            for source in node.all_input_nodes:
                if all(user not in self._sums or user is node for user in source.users):
                    self._values.pop(source, None)
