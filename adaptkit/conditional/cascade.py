"""A cascade: a small model answers what it is sure of, the large one the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.conditional.candidates import Candidate
from adaptkit.errors import DataError
from adaptkit.export.rule import Rule
from adaptkit.technique import Context

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.thresholds import Outcome
    from adaptkit.export.packaging import Packaging


@dataclass(frozen=True)
class Cascaded:
    """Models that are asked one after the other, with the thresholds that were found.

    Args:
        members: From the smallest to the largest.
        rule: What the scores are.
        temperatures: One a member but the last.
        thresholds: On the scores, one a member but the last.
        classes: Of every member.
        outcome: What the thresholds do to the samples they were tested on.
    """

    members: tuple[Artifact, ...]
    rule: Rule
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]
    classes: int
    outcome: Outcome

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the members that answer, with their own ways where they have several."""
        from adaptkit.runtime.members import flat_paths

        return flat_paths([member.paths for member in self.members])

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The networks of all members, and the share of the samples that come to each."""
        left = 1.0
        found = []
        for member, share in zip(self.members, self.outcome.shares, strict=True):
            found += [(proto, left * own) for proto, own in member.parts]
            left -= share
        return found

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the members' networks answer."""
        return [answer for member in self.members for answer in member.answers(x)]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write models/0, models/1, … and their manifest.

        Raises:
            ModelError: A finished model was made for other data.
            RunFolderError: The disk is full or the folder cannot be written.
        """
        from adaptkit.conditional.members import write_members
        from adaptkit.runtime.cascade import CascadeManifest, CascadeMember
        from adaptkit.runtime.manifest import describe

        names = write_members(self.members, folder, packaging)
        settings = zip(names, [*self.temperatures, 1.0], [*self.thresholds, None], strict=True)
        models = tuple(CascadeMember(folder=name, temperature=t, threshold=limit) for name, t, limit in settings)
        CascadeManifest(files=describe(folder), rule=self.rule, classes=self.classes, models=models).write(folder)


class CascadeOfModels(Conditional):
    """Ask a small model first, and a larger one only where the small one is not sure.

    A model's answer stands where its score, such as the margin p₁ − p₂, reaches its threshold: a sample takes
    t₁ + P(delegated) t₂ on average and t₁ + t₂ at worst. The thresholds are the fastest, by time measured in turns at
    batch 1 on one thread, whose drop in accuracy against the original model is bounded on validation samples. A model
    that does not pay is dropped; where none does, the entry is refused.

    Scores on images that a model was trained on are higher than on others, and thresholds from them promise too much:
    validation data must be new to all models, those named here too.

    Source: Park et al. 2015, "Big/little deep neural network for ultra low power inference", CODES+ISSS.

    Example:
        >>> CascadeOfModels(models=[{"zoo": "lenet5_digits"}]).rule
        'margin'
    """

    name: ClassVar[str] = "cascade"
    needs: ClassVar[frozenset[str]] = frozenset({"validation"})

    models: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """The smaller models, the smallest first; the model the entry is put around comes last."""
    rule: Rule = "margin"
    """What says how sure a model is."""
    temperature: bool = False
    """Find a temperature for each small model on calibration data, which makes it as sure as it is right."""
    objective: Literal["latency", "energy"] = "latency"
    """What is to be least: measured time, or the estimated energy of a sample."""
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Against the original model, as a share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the drop must hold."""

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Cascaded:
        """Put smaller models in front.

        Raises:
            DataError: There is no validation data, or no calibration data for temperatures.
            ModelError: A model cannot be loaded, or takes or answers something else than the original.
            TargetError: No thresholds keep the drop within its limit, or the large model alone is as fast.
        """
        from adaptkit.conditional.cascade_calibration import find_cascade

        if context.validation is None:
            raise DataError(f"{self.name} needs validation data: give Context(validation=...)")
        if self.temperature and context.calibration is None:
            raise DataError(
                f"{self.name} finds temperatures on calibration data: give Context(calibration=...), or set "
                "temperature to false"
            )
        return find_cascade(self, inner, original, context)
