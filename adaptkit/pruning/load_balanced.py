"""prune.load_balanced: as many weights for every processing element (Han et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt

from adaptkit.pruning.gradual import ScheduledPruning
from adaptkit.technique import Context, Form

if TYPE_CHECKING:
    from torch import Tensor, nn


class LoadBalancedPruning(ScheduledPruning):
    """Set weights to zero so that every processing element of an accelerator keeps the same number of them.

    Row r of a matrix belongs to element r mod E. Each element keeps the k = ⌊(1 − s) N / E⌋ weights of largest
    magnitude among its rows, N being the size of the matrix, so that no element waits for another: the time of a step
    is that of the busiest one. The sparsity s grows while the model trains, as in `prune.gradual` (Han et al. 2017,
    "ESE: Efficient speech recognition engine with sparse LSTM on FPGA", section 3.2).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x = torch.randn(64, 8)
        >>> context = Context(example_inputs=(x[:1],), train=(x, (x[:, 0] > 0).long()))
        >>> technique = LoadBalancedPruning(sparsity=0.75, elements=2, epochs=10)
        >>> net = technique.apply(nn.Sequential(nn.Linear(8, 4)), context)
        >>> [int((net[0].weight[element::2] != 0).sum()) for element in range(2)]
        [4, 4]
    """

    name: ClassVar[str] = "prune.load_balanced"
    leaves: ClassVar[frozenset[Form]] = frozenset({"sparse", "patterned"})

    elements: PositiveInt = Field(32, description="E: processing elements; no more than the smallest matrix has rows.")

    def check(self, model: nn.Module) -> list[str]:
        """List the patterns that match nothing, and matrices with fewer rows than there are elements."""
        from adaptkit.pruning.masks import find_weights

        problems = super().check(model)
        for name, weight in find_weights(model, self.targets, self.ignore).items():
            if len(weight) < self.elements:
                problems.append(
                    f"{name} has {len(weight)} rows for {self.elements} elements: lower elements, or add it to ignore"
                )
        return problems

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Train the model in place.

        Raises:
            TargetError: There are no weights among the targets, or one with fewer rows than elements.
            DataError: There is no training data.
        """
        from adaptkit.errors import TargetError
        from adaptkit.pruning.load_balance import busiest_to_mean
        from adaptkit.pruning.masks import mark_pattern

        for weight in self.weights(model).values():
            if len(weight) < self.elements:
                raise TargetError(f"{self.name}: {self.check(model)[0]}")
        model = super().apply(model, context)
        mark_pattern(model, self.weights(model))
        context.notes.append(
            f"load of the busiest of {self.elements} processing elements to the mean: "
            f"{max(busiest_to_mean(weight, self.elements) for weight in self.weights(model).values()):.3f}"
        )
        return model

    def masks(self, weights: list[Tensor], sparsity: float) -> list[Tensor]:
        """Keep as many weights in each element."""
        from adaptkit.pruning.load_balance import load_balanced_mask

        return [load_balanced_mask(weight, sparsity, self.elements) for weight in weights]
