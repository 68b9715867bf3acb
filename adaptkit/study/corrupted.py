"""How much accuracy common corruptions leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from adaptkit.study.base import Study

if TYPE_CHECKING:
    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject


class Corruptions(Study):
    """Accuracy on images with noise, blur and JPEG, of any file (Hendrycks and Dietterich 2019; `corrupted_accuracy`).

    `corruptions` is the mean over kinds and severities, `corruptions.jpeg` that of a kind over severities, both with a
    bootstrap over samples; `corruptions.clean` is the accuracy on the same samples as they are.
    """

    name: ClassVar[str] = "corruptions"
    of_images: ClassVar[bool] = True

    kinds: Annotated[tuple[Literal["gaussian_noise", "gaussian_blur", "jpeg"], ...], Field(min_length=1)] = (
        "gaussian_noise",
        "gaussian_blur",
        "jpeg",
    )
    """What is done to the images."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    """How hard, 1 to 5."""
    samples: PositiveInt = 1000
    """Test samples, drawn where there are more."""
    seed: int = 0
    """Source of the draw and the noise."""

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        import numpy as np

        from adaptkit.metrics.corruptions import corrupted_hits, share_of_hits
        from adaptkit.metrics.measured import as_value

        parts = []
        for number, (x, y) in enumerate(subject.draw(subject.data.test, self.samples, self.seed)):
            parts.append(corrupted_hits(subject.outputs, x, y, self.kinds, self.severities, seed=self.seed + number))
        hits = {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}
        found = {f"{self.name}.{kind}": share_of_hits(table) for kind, table in hits.items()}
        mean = share_of_hits(np.concatenate([table for kind, table in hits.items() if kind != "clean"], axis=1))
        samples = len(hits["clean"])
        return {name: as_value(each, samples, True) for name, each in {self.name: mean, **found}.items()}
