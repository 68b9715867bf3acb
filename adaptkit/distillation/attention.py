"""Attention transfer (Zagoruyko and Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.distillation.base import SoftDistillation
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.training.losses import StepLoss


class AttentionDistillation(SoftDistillation):
    """Train the model to look where its teacher looks, besides the softened outputs and the targets.

    Minimises the loss of `distill.logits` plus β / 2 · Σ over layers of the mean of (Q_s / ‖Q_s‖ − Q_t / ‖Q_t‖)², where
    Q is, at each place of a layer's output, the sum of the squares of its channels (Zagoruyko and Komodakis 2017,
    "Paying more attention to attention", section 3.1; with `alpha: 0` their loss without the softened outputs).
    Channels need not agree, so nothing is learnt beside the student. Layers that return N × H × W × C, as those of Swin
    do, are refused: name the permutation after them.

    Example:
        >>> AttentionDistillation(alpha=0, layers={"stage1": "stage1"}).weight
        100.0
    """

    name: ClassVar[str] = "distill.attention"

    weight: Annotated[float, Field(gt=0)] = Field(100.0, description="β: weight of the attention maps.")
    layers: dict[str, str] | None = Field(
        None,
        description="Layer of the student to layer of the teacher. Where none are named: the blocks of the same name, "
        "or else the last layers at each resolution.",
    )

    def check(self, model: nn.Module) -> list[str]:
        """List the named layers that the model does not have."""
        from adaptkit.distillation.taps import unknown_layers

        unknown = unknown_layers(model, self.layers or {})
        return super().check(model) + [f"{self.name}: {problem} (layers)" for problem in unknown]

    @contextmanager
    def objective(
        self, student: nn.Module, teacher: nn.Module, context: Context
    ) -> Iterator[tuple[nn.Module, StepLoss]]:
        """Compare the outputs and where the paired layers look."""
        import torch

        from adaptkit.distillation.losses import attention_loss
        from adaptkit.distillation.taps import find_pairs, require_places, tapped, to_same_resolution
        from adaptkit.distillation.teachers import answers
        from adaptkit.metrics.task import device_of, first_output

        device = device_of(student)
        inputs = tuple(x.to(device) for x in context.example_inputs)
        pairs = find_pairs(student, teacher, inputs, self.layers)
        require_places(pairs, tuple(inputs[0].shape))
        context.notes.append(f"Attention compared: {', '.join(str(pair) for pair in pairs)}.")
        with (
            tapped(student, [pair.student for pair in pairs]) as ours,
            tapped(teacher, [pair.teacher for pair in pairs]) as theirs,
        ):

            def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
                wanted = answers(teacher, x)
                output = first_output(model(x))
                maps = [attention_loss(*to_same_resolution(ours[pair.student], theirs[pair.teacher])) for pair in pairs]
                return self.outputs_loss(output, wanted, y) + self.weight / 2 * torch.stack(maps).sum(), output

            yield student, loss
