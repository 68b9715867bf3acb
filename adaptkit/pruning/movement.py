"""prune.movement: what moves towards zero in training becomes zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.pruning.sparse import Share, SparsePruning, Sparsity
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import nn


class MovementPruning(SparsePruning):
    """Keep the weights that training moves away from zero, however large they are: for models trained on another task.

    Each weight has a score S, which starts at 0 and is learnt beside it: the model runs with W ⊙ M, where M keeps the
    (1 − s_t) highest scores, and the gradient passes M as if it were S, so that S ← S − r · ∂L/∂(W ⊙ M) · W. A score
    grows while its weight grows, and falls while it shrinks; what was set to zero may come back. s_t is the cubic
    schedule of gradual pruning from 0 to `sparsity` (Sanh et al. 2020, "Movement pruning: adaptive sparsity by
    fine-tuning", sections 3 and 4, the hard form).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x = torch.randn(256, 8)
        >>> context = Context(example_inputs=(x[:1],), train=(x, (x[:, 0] > 0).long()))
        >>> net = MovementPruning(sparsity=0.75, epochs=20).apply(nn.Sequential(nn.Linear(8, 2)), context)
        >>> int((net[0].weight != 0).sum())
        4
    """

    name: ClassVar[str] = "prune.movement"
    needs: ClassVar[frozenset[str]] = frozenset({"train"})

    sparsity: Sparsity = Field(0.9, description="Share of zeros among the weights of the targets in the end.")
    begin: Share = Field(0.1, description="Share of the training in which scores gather and no weight is zero.")
    end: Share = Field(0.7, description="Share of the training after which the sparsity rises no more.")
    ranking: Literal["per_layer", "global"] = Field(
        "per_layer", description="The same share in every layer, or the lowest scores anywhere."
    )
    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")

    @model_validator(mode="after")
    def _in_order(self) -> MovementPruning:
        if self.begin >= self.end:
            raise ValueError(f"begin must be before end; got begin={self.begin:g}, end={self.end:g}")
        return self

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place, with scores beside it.

        Raises:
            TargetError: There are no weights among the targets.
            DataError: There is no training data.
        """
        from adaptkit.pruning.masks import apply_masks
        from adaptkit.pruning.schedules import cubic_sparsity
        from adaptkit.pruning.scored import Scored

        weights = self.weights(model)
        scored = Scored(model, weights, self.ranking)

        def after_step(step: int, total: int) -> None:
            begin, end = round(self.begin * total), max(1, round(self.end * total))
            scored.renew(cubic_sparsity(step, begin, end, 0.0, self.sparsity))

        self.train(scored, context, self.epochs, after_step=after_step)
        apply_masks(model, scored.masks())
        self.note(model, context, list(weights))
        return model
