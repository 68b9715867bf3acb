"""prune.depth: whole residual blocks go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from adaptkit.errors import TargetError
from adaptkit.progress import Silent
from adaptkit.technique import Context, Form, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.pruning.block_ranking import Sample, Score
    from adaptkit.pruning.block_removal import Budget, Removed

_TIMES = "block_times.json"


class DepthPruning(Technique):
    """Replace residual blocks y = x + f(x) by y = x, those first that the model misses least for what they cost.

    Blocks go one after the other: the one with the smallest rise of the score per second of measured ONNX Runtime time
    (target `latency`), per multiply-accumulate (`macs`) or per block (`blocks`), all remaining ones being ranked anew
    after each. The score compares the outputs on calibration samples with those of the model before pruning, or with
    the labels. Removing blocks is what makes a deep, narrow network faster: every layer that stays keeps the shape
    that the runtime is good at (compare Chen and Zhao 2018, "Shallowing Deep Networks: Layer-wise Pruning Based on
    Feature Representations").

    Example:
        >>> import torch
        >>> from adaptkit_zoo.cifar_resnet import resnet20_cifar
        >>> x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
        >>> context = Context(example_inputs=(x[:1],), calibration=(x, y))
        >>> model = DepthPruning(blocks=2).apply(resnet20_cifar(), context)
        >>> sum(type(module).__name__ == "BasicBlock" for module in model.modules())
        7
    """

    name: ClassVar[str] = "prune.depth"
    refuses: ClassVar[Mapping[Form, str]] = {
        "quantized": "a quantized model runs as one graph, without blocks to remove"
    }
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    targets: tuple[str, ...] = Field(("*",), description="Which modules may be blocks: class names, globs, re:….")
    ignore: tuple[str, ...] = Field((), description="Which may not.")
    latency: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the measured ONNX Runtime time to keep."
    )
    macs: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the multiply-accumulates to keep."
    )
    blocks: PositiveInt | None = Field(None, description="Number of blocks to remove; measures no time.")
    score: Literal["kl", "loss"] = Field(
        "kl", description="kl: divergence from the outputs before pruning; loss: on the labels."
    )
    samples: PositiveInt = Field(256, description="Calibration samples to rank with.")
    threads: PositiveInt = Field(1, description="Threads of ONNX Runtime when blocks are timed.")
    batch_size: PositiveInt = Field(1, description="Batch size when blocks are timed.")

    @model_validator(mode="after")
    def _one_target(self) -> DepthPruning:
        given = [key for key in ("latency", "macs", "blocks") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of latency, macs, blocks; found {' and '.join(given) or 'none'}")
        return self

    def check(self, model: nn.Module) -> list[str]:
        """List the patterns that match nothing in the model."""
        from adaptkit.surgery import unmatched

        unknown = unmatched(model, (*self.targets, *self.ignore))
        return super().check(model) + [
            f"prune.depth: {pattern!r} matches no module of {type(model).__name__}" for pattern in unknown
        ]

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Remove blocks until the target is met, then measure statistics of normalizations anew.

        Raises:
            TargetError: The model has no residual block, or removing all of them would not reach the target.
            DataError: There is no calibration sample.
        """
        from adaptkit.pruning.block_removal import remove_blocks
        from adaptkit.pruning.blocks import residual_blocks
        from adaptkit.statistics import renew_statistics

        found = residual_blocks(model, context.example_inputs, self.targets, self.ignore)
        if not found:
            raise TargetError(
                f"prune.depth: {type(model).__name__} has no residual block among its targets that could be removed "
                "(one tensor in, one of the same shape out, y = x + f(x)); use prune.structured"
            )
        budget = self._budget(model, context, found)
        removed = remove_blocks(model, list(found), budget, self._scoring(model, context), context.progress or Silent())
        context.notes.append(_describe(removed, len(found), budget.unit))
        renew_statistics(model, context)
        return model

    def _budget(self, model: nn.Module, context: Context, found: dict[str, Tensor]) -> Budget:
        from adaptkit.profiling.layer_latency import TimeStore
        from adaptkit.pruning.block_removal import count_budget, latency_budget, macs_budget
        from adaptkit.pruning.block_times import BlockTimes

        if self.blocks is not None:
            return count_budget(list(found), self.blocks)
        if self.macs is not None:
            return macs_budget(model, context.example_inputs, list(found), self.macs)
        assert self.latency is not None
        store = TimeStore(context.workspace / _TIMES if context.workspace else None)
        times = BlockTimes(model, context.example_inputs, store, self.threads, self.batch_size)
        return latency_budget(model, found, times, self.latency)

    def _scoring(self, model: nn.Module, context: Context) -> tuple[list[Sample], Score]:
        from adaptkit.pruning.block_ranking import divergence, first_samples, with_outputs
        from adaptkit.training.losses import target_loss

        assert context.calibration is not None
        samples = first_samples(context.calibration, self.samples)
        if self.score == "loss":
            return samples, context.loss or target_loss
        return with_outputs(model, samples), divergence


def _describe(removed: Sequence[Removed], blocks: int, unit: str) -> str:
    cost = {"latency": ("% of the time", 1e2), "macs": ("M MACs", 1e-6)}.get(unit)
    gone = [
        f"{block.name} ({block.rise:+.4f}" + (f", {block.cost * cost[1]:.2f} {cost[0]})" if cost else ")")
        for block in removed
    ]
    return f"removed {len(removed)} of {blocks} residual blocks (rise of the score when each went): {', '.join(gone)}"
