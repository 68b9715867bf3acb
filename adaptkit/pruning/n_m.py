"""prune.n_m: of every M neighbouring inputs, N weights stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt, model_validator

from adaptkit.errors import TargetError
from adaptkit.pruning.sparse import TrainedSparsePruning
from adaptkit.technique import Context, Form

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5


class NMPruning(TrainedSparsePruning):
    """Keep the N largest of every M neighbouring input weights: 2:4 is what sparse tensor cores multiply twice as fast.

    Neighbours are consecutive input channels (dimension 1 of a weight), at the same output and the same place of the
    kernel. Before the cut, channels change places so that the N largest hold more: whatever makes and takes them is
    reordered together, as the model's own graph says, so that the network computes the same. A layer whose inputs are
    no multiple of M is left alone, and so are transposed convolutions.

    Sources: Mishra et al. 2021, "Accelerating sparse deep neural networks"; Pool and Yu 2021, "Channel permutations for
    N:M sparsity".

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = NMPruning().apply(nn.Sequential(nn.Linear(8, 2)), Context(example_inputs=(torch.zeros(1, 8),)))
        >>> [int(count) for count in (net[0].weight != 0).unflatten(1, (2, 4)).sum(-1).flatten()]
        [2, 2, 2, 2]
    """

    name: ClassVar[str] = "prune.n_m"
    leaves: ClassVar[frozenset[Form]] = frozenset({"sparse", "patterned"})

    n: PositiveInt = Field(2, description="How many weights stay.")
    m: PositiveInt = Field(4, description="Of how many neighbours.")
    permute: bool = Field(True, description="Reorder channels first, so that what stays weighs more.")

    @model_validator(mode="after")
    def _fewer(self) -> NMPruning:
        if self.n >= self.m:
            raise ValueError(f"n must be below m; got n={self.n}, m={self.m}")
        return self

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Reorder channels and set weights to zero in place, and recover.

        Raises:
            TargetError: No layer among the targets has inputs in a multiple of M.
            DataError: Recovery has no training data.
        """
        from adaptkit.pruning.masks import apply_masks, mark_pattern, n_m_mask

        weights = self._weights(model, context)
        fitting = {name: weight for name, weight in weights.items() if weight.shape[1] % self.m == 0}
        if not fitting:
            raise TargetError(f"{self.name}: no layer among the targets has a multiple of m={self.m} inputs")
        odd = [f"{name} ({weight.shape[1]} inputs)" for name, weight in weights.items() if name not in fitting]
        if odd:
            context.notes.append(f"left alone, since their inputs are no multiple of {self.m}: {', '.join(odd)}")
        if self.permute:
            self._permute(model, context, set(fitting))
        apply_masks(model, {name: n_m_mask(weight, self.n, self.m) for name, weight in fitting.items()})
        mark_pattern(model, fitting)
        return self.finish(model, context, list(fitting))

    def _weights(self, model: nn.Module, context: Context) -> dict[str, nn.Parameter]:
        """Find the weights with inputs in dimension 1."""
        from adaptkit.pruning.layers import output_dim

        weights = self.weights(model)
        turned = [name for name in weights if output_dim(model.get_submodule(name.rpartition(".")[0])) == 1]
        if turned:
            context.notes.append(f"left alone, since they are transposed convolutions: {', '.join(turned)}")
        return {name: weight for name, weight in weights.items() if name not in turned}

    def _permute(self, model: nn.Module, context: Context, names: set[str]) -> None:
        from adaptkit.errors import ModelError
        from adaptkit.pruning.permutation import permute_channels

        try:
            gains, left = permute_channels(model, context.example_inputs, names, self.n, self.m)
        except ModelError as error:
            context.notes.append(f"channels keep their order, since the model cannot be captured: {error}")
            return
        context.notes.extend(left)
        if gains:
            best = sorted(gains, key=lambda gain: gain.before - gain.after)[:_SHOWN]
            listed = ", ".join(f"{g.label} {100 * g.before:.1f} → {100 * g.after:.1f} %" for g in best)
            context.notes.append(
                f"channels of {len(gains)} groups changed places; magnitude that {self.n}:{self.m} keeps of what takes "
                f"them: {listed}"
            )
