"""What a network makes of samples on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from adaptkit.conditional.activation_keys import Array
from adaptkit.conditional.exit_network import tapped
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating

Change: TypeAlias = Callable[[Tensor], Tensor]
Tap: TypeAlias = tuple[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Seen:
    """What a network makes of some samples.

    Args:
        values: What each tap gives, N × features.
        answers: N × classes.
        y: Labels.
        original: Whether the original model is right.
    """

    values: list[Tensor]
    answers: Array
    y: Array
    original: Array


def look_at(
    network: nn.Module,
    original: nn.Module,
    taps: Sequence[Tap],
    samples: BatchSource,
    changes: Sequence[Change],
    most: int | None = None,
) -> list[Seen]:
    """Run samples, each in several forms.

    Args:
        network: That is tapped.
        original: Whose answers are held against the labels.
        taps: A module of the network, and what is made of its output.
        samples: Are read once.
        changes: Make the forms.
        most: Samples at most.

    Returns:
        One for each form.
    """
    paths = tuple(dict.fromkeys(path for path, _ in taps))
    rows: list[list[tuple[Tensor, ...]]] = [[] for _ in changes]
    count = 0
    with evaluating(network), evaluating(original), torch.no_grad():
        for x, y in as_batches(samples):
            for change, mine in zip(changes, rows, strict=True):
                form = change(x)
                with tapped(network, paths) as on:
                    given = first_output(network(form))
                right = (given if original is network else first_output(original(form))).argmax(1) == y
                mine.append((given, y, right, *(make(on[path]) for path, make in taps)))
            count += len(y)
            if most is not None and count >= most:
                break
    return [_seen(mine, most) for mine in rows]


def _seen(batches: list[tuple[Tensor, ...]], most: int | None) -> Seen:
    answers, y, right, *values = (torch.cat(each)[:most] for each in zip(*batches, strict=True))
    return Seen(values, answers.numpy(), y.numpy(), right.numpy())


class Tapped(nn.Module):
    """A network that gives what taps make on the way, behind its own answer.

    Args:
        network: Any.
        taps: As in `look_at`; several may be behind one module.
    """

    def __init__(self, network: nn.Module, taps: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.network, self.heads = network, nn.ModuleList(head for _, head in taps)
        self.paths = tuple(path for path, _ in taps)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the network's answer, and N × features for each tap."""
        with tapped(self.network, tuple(dict.fromkeys(self.paths))) as on:
            final = first_output(self.network(x))
        return final, *(head(on[path]) for path, head in zip(self.paths, self.heads, strict=True))
