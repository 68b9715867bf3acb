"""Greedy removal of residual blocks down to a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from adaptkit.errors import TargetError
from adaptkit.progress import Progress
from adaptkit.pruning.block_ranking import Sample, Score, rank_blocks
from adaptkit.pruning.block_times import BlockTimes, block_macs
from adaptkit.surgery import replace_module

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Removed:
    """A block that went: its name, how much the score rose by it, and what it had cost."""

    name: str
    rise: float
    cost: float


@dataclass(frozen=True)
class Budget:
    """What each block costs, and which share of the whole may stay.

    Args:
        unit: What is counted: "blocks", "macs" (per sample) or "latency" (share of the model's time).
        costs: By block.
        total: Of the whole model; for "blocks" their number.
        keep: The share to keep, at most.
        measure: Confirms the share kept, where the costs of blocks only estimate it.
    """

    unit: Literal["blocks", "macs", "latency"]
    costs: dict[str, float]
    total: float
    keep: float
    measure: Callable[[nn.Module], float] | None = None

    def kept(self, removed: Sequence[Removed]) -> float:
        """Return the share that stays without the removed blocks, by their costs."""
        return 1 - sum(block.cost for block in removed) / self.total

    def met(self, model: nn.Module, removed: Sequence[Removed]) -> bool:
        """Say whether the model without the removed blocks is within the budget."""
        if self.kept(removed) > self.keep + _ROUNDING:
            return False
        return self.measure is None or self.measure(model) <= self.keep

    def check_reachable(self) -> None:
        """Refuse a share below what is left when every block is gone.

        Raises:
            TargetError: It is below; names the smallest share.
        """
        if self.unit == "blocks":
            wanted = round((1 - self.keep) * self.total)
            if wanted > len(self.costs):
                raise TargetError(f"prune.depth: blocks: {wanted} of {len(self.costs)} removable blocks; ask for fewer")
            return
        smallest = 1 - sum(self.costs.values()) / self.total
        if smallest > self.keep:
            raise TargetError(self.too_small(smallest))

    def too_small(self, smallest: float) -> str:
        """Say that the share cannot be reached, and what can."""
        return (
            f"prune.depth: {self.unit}: {self.keep:g} cannot be reached: without all its {len(self.costs)} removable "
            f"blocks the model keeps {smallest:.3f}; ask for more than that, or add prune.structured"
        )


def count_budget(names: Sequence[str], blocks: int) -> Budget:
    """Make the budget that removes a number of blocks, all of them costing the same."""
    return Budget("blocks", dict.fromkeys(names, 1.0), len(names), 1 - blocks / len(names))


def macs_budget(model: nn.Module, example_inputs: tuple[Tensor, ...], names: Sequence[str], keep: float) -> Budget:
    """Make the budget of multiply-accumulates."""
    costs = block_macs(model, names, example_inputs)
    return Budget("macs", costs, costs.pop(""), keep)


def latency_budget(model: nn.Module, found: dict[str, Tensor], times: BlockTimes, keep: float) -> Budget:
    """Make the budget of measured ONNX Runtime time.

    Args:
        model: Before removal.
        found: The blocks and the input of each.
        times: What measures, made for this model.
        keep: Share of the time to keep.
    """
    costs = {name: times.block(model.get_submodule(name), x) for name, x in found.items()}
    return Budget("latency", costs, 1.0, keep, times.kept)


def remove_blocks(
    model: nn.Module,
    names: Sequence[str],
    budget: Budget,
    scoring: tuple[Sequence[Sample], Score],
    progress: Progress,
) -> list[Removed]:
    """Replace blocks of the model by the identity, the cheapest loss for its cost first, until the budget is met.

    Args:
        model: Edited in place.
        names: The removable blocks, in the order in which they run.
        budget: What blocks cost and what may stay.
        scoring: Samples and score, as `rank_blocks` takes them.
        progress: Shows how much of the saving is done.

    Raises:
        TargetError: The budget cannot be met.
    """
    budget.check_reachable()
    left = list(names)
    removed: list[Removed] = []
    while not budget.met(model, removed):
        if not left:
            raise TargetError(budget.too_small(budget.measure(model) if budget.measure else budget.kept(removed)))
        ranking = rank_blocks(model, left, *scoring)
        best = min(left, key=lambda name: ranking.rise(name) / budget.costs[name])
        replace_module(model, best, nn.Identity())
        left.remove(best)
        removed.append(Removed(best, ranking.rise(best), budget.costs[best]))
        progress.update(1 - budget.kept(removed), 1 - budget.keep, f"without {best}")
    progress.close()
    return removed
