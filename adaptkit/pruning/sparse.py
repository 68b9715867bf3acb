"""What all techniques that set single weights to zero share: which weights, training, what is said in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adaptkit.errors import DataError, TargetError
from adaptkit.technique import Context, Form, Technique
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.training.losses import StepLoss

Sparsity = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]

SPEED = (
    "ONNX Runtime multiplies zeros like any other number: the file and the download get smaller where constants are "
    "stored as values and indices, the computation gets no faster"
)


class SparsePruning(Technique):
    """Set weights to zero that stay zero in all that follows; a subclass says which, in `apply`."""

    leaves: ClassVar[frozenset[Form]] = frozenset({"sparse"})
    refuses: ClassVar[Mapping[Form, str]] = {
        "patterned": "further zeros would leave some parts of the pattern with fewer weights than the others",
        "quantized": "a quantized model has its integers already, which a mask would not change",
    }

    targets: tuple[str, ...] = Field(("*",), description="Layers to make sparse: class name, module name glob or re:….")
    ignore: tuple[str, ...] = Field((), description="Layers that stay as they are.")
    fit: FitSettings = Field(default_factory=FitSettings, description="How the model trains.")

    def check(self, model: nn.Module) -> list[str]:
        """List patterns that match nothing, and patterns that leave no weights."""
        from adaptkit.pruning.masks import find_weights
        from adaptkit.surgery import unmatched

        problems = super().check(model)
        problems += [f"{pattern!r} matches no module of the model" for pattern in unmatched(model, self.targets)]
        problems += [f"ignore: {pattern!r} matches no module of the model" for pattern in unmatched(model, self.ignore)]
        if not problems and not find_weights(model, self.targets, self.ignore):
            problems.append("targets and ignore together leave no layer with weights")
        return problems

    def weights(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Find the weights that may become zero, by name.

        Raises:
            TargetError: There is none.
        """
        from adaptkit.pruning.masks import find_weights

        found = find_weights(model, self.targets, self.ignore)
        if not found:
            raise TargetError(
                f"{self.name}: {type(model).__name__} has no convolution, linear, recurrent or attention layer that "
                f"targets={list(self.targets)} and ignore={list(self.ignore)} leave"
            )
        return found

    def train(
        self,
        model: nn.Module,
        context: Context,
        epochs: float,
        *,
        folder: str = "fit",
        loss: StepLoss | None = None,
        after_step: Callable[[int, int], None] | None = None,
    ) -> None:
        """Train the model, or the module that holds it, in place; the loss of the context where none is given.

        Raises:
            DataError: There is no training data.
        """
        from adaptkit.training.fit import fit
        from adaptkit.training.losses import supervised

        if context.train is None:
            raise DataError(f"{self.name} needs training data for {epochs:g} epochs: give Context(train=...)")
        if loss is None and context.loss is not None:
            loss = supervised(context.loss)
        fit(
            model,
            context.train,
            epochs=epochs,
            settings=self.fit,
            loss=loss,
            seed=context.seed,
            workspace=None if context.workspace is None else context.workspace / folder,
            progress=context.progress,
            tag=self.model_dump_json(),
            after_step=after_step,
        )

    def note(self, model: nn.Module, context: Context, names: list[str]) -> None:
        """Say in the report how sparse the weights are, and what that is worth."""
        from adaptkit.pruning.masks import describe

        context.notes.append(describe(model, names))
        context.notes.append(SPEED)


class TrainedSparsePruning(SparsePruning):
    """A sparsification with an optional phase of training at the end, in which zeros stay zero."""

    recovery_epochs: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Epochs of training after the weights are set to zero; needs training data."
    )

    def finish(self, model: nn.Module, context: Context, names: list[str]) -> nn.Module:
        """Recover, if only by new statistics of normalizations, and say what has become of the weights."""
        from adaptkit.statistics import renew_statistics

        if self.recovery_epochs > 0:
            self.train(model, context, self.recovery_epochs, folder="recovery")
        else:
            renew_statistics(model, context)
        self.note(model, context, names)
        return model
