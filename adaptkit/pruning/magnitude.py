"""prune.magnitude: the smallest weights become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.pruning.sparse import Sparsity, TrainedSparsePruning
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import nn


class MagnitudePruning(TrainedSparsePruning):
    """Set the weights of smallest magnitude to zero, at once, and keep them there in all that follows.

    Of the N weights of the targets, the (1 − sparsity) · N with the highest scores stay: |w| within its own layer
    (`per_layer`), |w| over all layers (`global`), or w² / Σ v² over the v² ≥ w² of its layer, over all layers (`lamp`).
    Biases and normalizations stay. The file stores what is left as values and indices where that is smaller; ONNX
    Runtime computes with the zeros.

    Sources: Han et al. 2015, "Learning both weights and connections for efficient neural networks"; Lee et al. 2021,
    "Layer-adaptive sparsity for the magnitude-based pruning" (`lamp`).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = MagnitudePruning(sparsity=0.75).apply(
        ...     nn.Sequential(nn.Linear(16, 8)), Context(example_inputs=(torch.zeros(1, 16),))
        ... )
        >>> int((net[0].weight == 0).sum()), net[0].sparse_parameters
        (96, ('weight',))
    """

    name: ClassVar[str] = "prune.magnitude"

    sparsity: Sparsity = Field(0.5, description="Share of zeros among the weights of the targets.")
    ranking: Literal["per_layer", "global", "lamp"] = Field(
        "lamp", description="The same share in every layer, the smallest anywhere, or the smallest for their layer."
    )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Set weights to zero in place, and recover.

        Raises:
            TargetError: There are no weights among the targets.
            DataError: Recovery has no training data.
        """
        from adaptkit.pruning.masks import apply_masks, magnitude_masks

        weights = self.weights(model)
        masks = magnitude_masks(list(weights.values()), self.sparsity, self.ranking)
        apply_masks(model, dict(zip(weights, masks, strict=True)))
        return self.finish(model, context, list(weights))
