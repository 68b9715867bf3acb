"""prune.single_shot: rows and columns go together, and one budget decides how many in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt, model_validator

from adaptkit.pruning.sparse import Sparsity, TrainedSparsePruning
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.pruning.rows_columns import Kept

_TARGETS = ("params", "macs")
_DEFAULT_TARGET = ("macs", 0.5)
_SHOWN = 6


class SingleShotPruning(TrainedSparsePruning):
    """Set rows and columns of the weights to zero in one training; one budget finds how many in every layer.

    A weight is the matrix out × in·k·k. While the model trains, the rows and columns that the budget leaves out are
    pulled to zero by the proximal step of Σ λ_g ‖W_g‖ after each optimizer step, and those that are to stay are not
    punished; after each of `rounds` equal parts it is decided anew which those are, with one threshold over the worth
    Σ_g w² / Σ w² per cost of all rows and columns of all layers, so a group that training defends comes back. In the
    end the rows and columns left out become zero for good.

    Source: Li et al. 2020, "SS-Auto: a single-shot, automatic structured weight pruning framework of DNNs with
    ultra-high efficiency" (row and column pruning at once, soft constraints, a proximal step that does not punish all
    weights alike); which groups are punished, and how much, is chosen here as said above.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x = torch.randn(64, 8)
        >>> context = Context(example_inputs=(x[:1],), train=(x, (x[:, 0] > 0).long()))
        >>> net = SingleShotPruning(params=0.5, epochs=4).apply(
        ...     nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), context
        ... )
        >>> int((net[0].weight != 0).sum() + (net[2].weight != 0).sum()) <= 40
        True
    """

    name: ClassVar[str] = "prune.single_shot"
    needs: ClassVar[frozenset[str]] = frozenset({"train"})

    params: Sparsity | None = Field(None, description="Share of the targets' weights to keep.")
    macs: Sparsity | None = Field(
        None, description="Share of the targets' multiply-accumulates to keep; 0.5 where no target is given."
    )
    epochs: Annotated[float, Field(gt=0)] = Field(2.0, description="Passes over the training data before the cut.")
    rounds: PositiveInt = Field(10, description="How often it is decided which rows and columns go.")
    pull: Sparsity = Field(0.5, description="What a round leaves of the norm of a row or column that is to go.")

    @model_validator(mode="after")
    def _one_target(self) -> SingleShotPruning:
        if self.params is not None and self.macs is not None:
            raise ValueError("give exactly one of params, macs; found params and macs")
        return self

    def target(self) -> tuple[str, float]:
        """Return which cost is to fall, and to what share."""
        given = ((kind, getattr(self, kind)) for kind in _TARGETS)
        return next(((kind, share) for kind, share in given if share is not None), _DEFAULT_TARGET)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model and set rows and columns to zero, in place.

        Raises:
            TargetError: There are no weights among the targets, or rows and columns do not reach the budget.
            DataError: There is no training data.
            ModelError: torch.export cannot capture the model.
        """
        from adaptkit.pruning.constraints import free_outputs, macs_per_weight
        from adaptkit.pruning.layers import output_dims
        from adaptkit.pruning.masks import apply_masks
        from adaptkit.pruning.rows_columns import Pulled, mask_of
        from adaptkit.pruning.schedules import is_update

        weights = self.weights(model)
        kind, share = self.target()
        inputs = context.example_inputs
        costs = macs_per_weight(model, inputs, weights) if kind == "macs" else dict.fromkeys(weights, 1.0)
        # The rows of a transposed convolution are what it takes, which may always go.
        free = free_outputs(model, inputs) | output_dims(model).keys()
        budget = share * sum(costs[name] * weight.numel() for name, weight in weights.items())
        pulled = Pulled(model, weights)
        pulled.choose(costs, free, budget)

        def after_step(step: int, total: int) -> None:
            pulled.pull(self.pull ** (self.rounds / total))
            if is_update(step, 0, total, self.rounds):
                pulled.choose(costs, free, budget)

        self.train(pulled, context, self.epochs, after_step=after_step)
        kept = pulled.choose(costs, free, budget)
        apply_masks(model, {name: mask_of(weight, kept[name]) for name, weight in weights.items()})
        context.notes.append(_ratios(kept))
        return self.finish(model, context, list(weights))


def _ratios(kept: Kept) -> str:
    shares = sorted((float(r.float().mean() * c.float().mean()), name) for name, (r, c) in kept.items())
    listed = ", ".join(f"{name} {_counts(*kept[name])}" for _, name in shares[:_SHOWN])
    return f"rows and columns that stay, where fewest do: {listed}"


def _counts(rows: Tensor, columns: Tensor) -> str:
    return f"{int(rows.sum())} of {len(rows)} and {int(columns.sum())} of {len(columns)}"
