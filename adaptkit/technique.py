"""The contract every technique keeps: settings in, model in, model out.

Modules that define a Technique import torch inside their methods only, so that recipes are checked without loading it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.loading.batches import BatchSource
    from adaptkit.progress import Progress

Form = Literal["sparse", "patterned", "quantized", "limited sums"]
"""What a model can have become: zeros stay; where they stand is a pattern; integers; sums of those in few bits."""


class Technique(BaseModel):
    """One way to make a model smaller, faster or more frugal; its fields are the keys of a recipe step.

    A subclass is frozen, refuses unknown fields, gives every default in its field list and nowhere else, and defines
    `name`, `needs`, `check` and `apply`. It never measures accuracy, prints or saves: the pipeline does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """The context fields that must be there: "train", "calibration", "validation", "teacher"."""
    leaves: ClassVar[frozenset[Form]] = frozenset()
    """What the model has become afterwards, and stays."""
    of_classes: ClassVar[bool] = False
    """Whether it works on scores of classes only, so that a model which gives a number does not fit."""
    refuses: ClassVar[Mapping[Form, str]] = {
        "quantized": "it works on float weights, and the integers would not follow"
    }
    """What the model must not have become before, each with the reason."""

    def check(self, model: nn.Module) -> list[str]:
        """List every reason why these settings do not fit this model, without changing or running it."""
        from adaptkit.order import forms_of

        return [self.refuses[form] for form in sorted(forms_of(model)) if form in self.refuses]

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Return the compressed model; the one given may be edited and must not be used afterwards."""
        raise TypeError(f"{type(self).__name__} defines no apply()")


@dataclass(frozen=True)
class Context:
    """All that a technique sees besides the model; what it does not name in `needs` may be None.

    Args:
        example_inputs: The inputs of one forward call, batch first.
        train: Data to train on: (x, y) tensors or any re-iterable that yields (x, y) batches, as the next three.
        validation: Data for decisions (early stopping, thresholds, searches).
        calibration: Data for statistics (ranges, Taylor importance, block ranking); for ranges of models of several
            inputs, x is a tuple of them.
        test: Never read by a technique.
        loss: Maps (output, target) to a scalar; `training.losses.target_loss` where None.
        metric: Maps (output, target) to a score, higher is better; top-1 accuracy where None.
        teacher: The model to distil from.
        seed: Every random choice derives from it.
        workspace: A folder for what a long technique needs to go on after a kill; None keeps nothing.
        progress: Where long work shows how far it is; silent where None.
        notes: What the technique wants the report to say, one sentence each.
    """

    example_inputs: tuple[Tensor, ...]
    train: BatchSource | None = None
    validation: BatchSource | None = None
    calibration: BatchSource | None = None
    test: BatchSource | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    metric: Callable[[Tensor, Tensor], Tensor] | None = None
    teacher: nn.Module | None = None
    seed: int = 0
    workspace: Path | None = None
    progress: Progress | None = None
    notes: list[str] = field(default_factory=list)

    def replace(self, **changes: Any) -> Context:
        """Return a copy with some fields changed; the notes are shared."""
        return dataclasses.replace(self, **changes)
