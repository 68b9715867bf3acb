"""A model whose weights have learned scores: what movement pruning trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adaptkit.pruning.masks import count_kept, highest


class ScoredWeight(torch.autograd.Function):
    """W ⊙ M forward; backward M as a constant for W, and as the identity for the scores: ∂L/∂S = ∂L/∂(W ⊙ M) ⊙ W."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """Return the masked weight.

        Args:
            ctx: Of autograd.
            weight: W, any shape.
            scores: S, flat.
            mask: M, true where a weight stays; the shape of the weight.
        """
        ctx.save_for_backward(weight, mask)
        return weight.masked_fill(~mask, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of weight and scores."""
        weight, mask = ctx.saved_tensors
        return gradient.masked_fill(~mask, 0), (gradient * weight).flatten(), None


class Scored(nn.Module):
    """A model that runs with the weights of highest score only; all that the masks depend on is state.

    Args:
        model: Its parameters stay where they are, unmasked.
        names: Names of its parameters that are masked.
        ranking: "per_layer": the same share of each stays; "global": the highest scores anywhere.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, Tensor], ranking: str) -> None:
        super().__init__()
        self.model = model
        self.names = list(names)
        self.ranking = ranking
        # Flat, so that weight decay, which is for matrices, leaves them alone.
        self.scores = nn.ParameterList(nn.Parameter(torch.zeros_like(w).flatten()) for w in names.values())
        for number, weight in enumerate(names.values()):
            self.register_buffer(f"mask_{number}", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, *inputs: Tensor) -> Any:
        """Call the model with its masked weights."""
        masks = self.masks()
        weights = {
            name: ScoredWeight.apply(self.model.get_parameter(name), scores, masks[name])
            for name, scores in zip(self.names, self.scores, strict=True)
        }
        return functional_call(self.model, weights, inputs)

    def masks(self) -> dict[str, Tensor]:
        """Return which weights stay, by name."""
        return {name: self.get_buffer(f"mask_{number}") for number, name in enumerate(self.names)}

    def renew(self, sparsity: float) -> None:
        """Choose anew which weights stay.

        Args:
            sparsity: Share of zeros.
        """
        scores = [one.detach() for one in self.scores]
        if self.ranking == "global":
            chosen = highest(scores, count_kept(sum(one.numel() for one in scores), sparsity))
        else:
            chosen = [highest([one], count_kept(one.numel(), sparsity))[0] for one in scores]
        for mask, stays in zip(self.masks().values(), chosen, strict=True):
            mask.copy_(stays.reshape(mask.shape))
