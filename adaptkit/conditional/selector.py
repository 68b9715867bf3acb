"""A selector: a cheap look at an image says which model is to answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.conditional.candidates import Candidate
from adaptkit.errors import DataError
from adaptkit.technique import Context

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.thresholds import Outcome
    from adaptkit.export.packaging import Packaging


@dataclass(frozen=True)
class Selected:
    """Models, and what chooses between them.

    Args:
        premodel: Gives the votes for every member but the last.
        members: From the fastest to the one for the rest.
        thresholds: On the votes, one a member but the last.
        classes: Of every member.
        outcome: What the thresholds do to the samples they were tested on.
    """

    premodel: onnx.ModelProto
    members: tuple[Artifact, ...]
    thresholds: tuple[float, ...]
    classes: int
    outcome: Outcome

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the members, with their own ways where they have several."""
        from adaptkit.runtime.members import flat_paths

        return flat_paths([member.paths for member in self.members])

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The premodel, and the networks of all members with the share of the samples that go to each."""
        shares = zip(self.members, self.outcome.shares, strict=True)
        return [
            (self.premodel, 1.0),
            *((proto, share * own) for member, share in shares for proto, own in member.parts),
        ]

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the members' networks answer."""
        return [answer for member in self.members for answer in member.answers(x)]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write premodel.onnx, models/0, models/1, … and their manifest.

        Raises:
            ModelError: A finished model was made for other data.
            RunFolderError: The disk is full or the folder cannot be written.
        """
        import onnx

        from adaptkit.conditional.members import write_members
        from adaptkit.runtime.manifest import describe
        from adaptkit.runtime.selector import PREMODEL, SelectorManifest, SelectorMember

        names = write_members(self.members, folder, packaging)
        packaging.write(onnx.ModelProto.FromString(self.premodel.SerializeToString()), folder / PREMODEL)
        limits = zip(names, [*self.thresholds, None], strict=True)
        models = tuple(SelectorMember(folder=name, threshold=limit) for name, limit in limits)
        SelectorManifest(files=describe(folder), premodel=PREMODEL, classes=self.classes, models=models).write(folder)


class ModelSelection(Conditional):
    """Send every image to the model that suits it, chosen by nearest neighbours over cheap features.

    For images of one half of the validation data it is known which model is the one to use. The k nearest of them, by
    features that an ONNX graph computes (`conditional.image_features`), vote for each model; the first with enough
    votes gets the image. How many are enough is found on the other half: the fastest, by time measured in turns at
    batch 1 with the features counted, whose drop in accuracy against the original model is bounded. A model that does
    not pay is dropped; where none does, the entry is refused.

    Unlike a cascade it never runs two models for one image; but features this cheap tell little about which images are
    easy. Validation data must be new to all models.

    Source: Taylor et al. 2018, "Adaptive deep learning model selection on embedded systems", LCTES; Marco et al. 2020,
    "Optimizing deep learning inference on embedded systems through adaptive model selection", TECS.

    Example:
        >>> ModelSelection(models=[{"zoo": "lenet5_digits"}]).label
        'fastest_right'
    """

    name: ClassVar[str] = "selector"
    needs: ClassVar[frozenset[str]] = frozenset({"validation"})

    models: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """Models that may be used in place of the one the entry is put around."""
    label: Literal["fastest_right", "best_metric"] = "fastest_right"
    """The model to use is the fastest that is right, or the one that finds the true class likeliest."""
    classifier: Literal["cascade", "single"] = "cascade"
    """One vote for each model in turn, among samples no earlier model is for; or one vote, in which whoever speaks for
    a faster model speaks for the slower ones too."""
    neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (5, 9, 15, 25, 41, 65, 101)
    """How many may be asked; which of these numbers is found by cross-validation."""
    folds: Annotated[int, Field(ge=2)] = 10
    """Parts of the cross-validation."""
    max_correlation: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Of two features that are correlated by more, one is left out."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A model is worth having where it is the one to use for at least this share of the samples."""
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Against the original model, as a share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the drop must hold."""

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Selected:
        """Put other models beside, and a premodel in front.

        Raises:
            DataError: There is no validation data, or too little.
            ModelError: A model cannot be loaded, or takes or answers something else than the original.
            TargetError: No thresholds keep the drop within its limit, or the large model alone is as fast.
        """
        from adaptkit.conditional.selector_calibration import find_selector

        if context.validation is None:
            raise DataError(f"{self.name} needs validation data: give Context(validation=...)")
        return find_selector(self, inner, original, context)
