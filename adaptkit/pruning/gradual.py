"""prune.gradual: weights become zero while the model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from adaptkit.pruning.sparse import Share, SparsePruning, Sparsity
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn


class ScheduledPruning(SparsePruning):
    """Set more and more weights to zero while the model trains; a subclass says which, in `masks`."""

    needs: ClassVar[frozenset[str]] = frozenset({"train"})

    sparsity: Sparsity = Field(0.9, description="s_f: share of zeros among the weights of the targets in the end.")
    initial: Share = Field(0.0, description="s_i: share of zeros at t₀.")
    begin: Share = Field(0.0, description="t₀ as a share of the training.")
    end: Share = Field(0.7, description="t₁ as a share of the training; after it the model recovers.")
    updates: PositiveInt = Field(50, description="How many times more weights become zero, at most once a step.")
    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training data; parts count.")

    @model_validator(mode="after")
    def _in_order(self) -> ScheduledPruning:
        if self.begin >= self.end:
            raise ValueError(f"begin must be before end; got begin={self.begin:g}, end={self.end:g}")
        if self.initial >= self.sparsity:
            raise ValueError(
                f"initial must be below sparsity; got initial={self.initial:g}, sparsity={self.sparsity:g}"
            )
        return self

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place.

        Raises:
            TargetError: There are no weights among the targets.
            DataError: There is no training data.
        """
        from adaptkit.pruning.masks import mark

        weights = self.weights(model)
        mark(model, weights)
        self.train(model, context, self.epochs, after_step=self._schedule(model))
        self.note(model, context, list(weights))
        return model

    def masks(self, weights: list[Tensor], sparsity: float) -> list[Tensor]:
        """Say which weights stay at this sparsity: a boolean tensor of each shape."""
        raise TypeError(f"{type(self).__name__} defines no masks()")

    def _schedule(self, model: nn.Module) -> Callable[[int, int], None]:
        from adaptkit.pruning.masks import apply_masks
        from adaptkit.pruning.schedules import cubic_sparsity, is_update

        def after_step(step: int, total: int) -> None:
            begin, end = round(self.begin * total), max(1, round(self.end * total))
            if not is_update(step, begin, end, self.updates):
                return
            share = cubic_sparsity(step, begin, end, self.initial, self.sparsity)
            weights = self.weights(model)
            masks = self.masks([weight.detach() for weight in weights.values()], share)
            apply_masks(model, dict(zip(weights, masks, strict=True)))

        return after_step


class GradualPruning(ScheduledPruning):
    """Set the smallest weights to zero little by little while the model trains, so that the others take over.

    After step t of T the sparsity is s_t = s_f + (s_i − s_f) (1 − (t − t₀) / (t₁ − t₀))³ with t₀ = begin · T and
    t₁ = end · T, renewed `updates` times between them; in between, and from t₁ on, zeros stay zero (Zhu and Gupta 2017,
    "To prune, or not to prune: exploring the efficacy of pruning for model compression", section 3).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x = torch.randn(64, 8)
        >>> context = Context(example_inputs=(x[:1],), train=(x, (x[:, 0] > 0).long()))
        >>> net = GradualPruning(sparsity=0.75, epochs=10).apply(nn.Sequential(nn.Linear(8, 2)), context)
        >>> int((net[0].weight != 0).sum())
        4
    """

    name: ClassVar[str] = "prune.gradual"

    ranking: Literal["per_layer", "global", "lamp"] = Field(
        "lamp", description="The same share in every layer, the smallest anywhere, or the smallest for their layer."
    )

    def masks(self, weights: list[Tensor], sparsity: float) -> list[Tensor]:
        """Keep the weights of highest score, as `masks.magnitude_masks` says."""
        from adaptkit.pruning.masks import magnitude_masks

        return magnitude_masks(weights, sparsity, self.ranking)
