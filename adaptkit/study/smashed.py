"""What activations that are sent over a link tell about the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

from adaptkit.errors import DataError, ModelError
from adaptkit.study.base import Study

if TYPE_CHECKING:
    from torch import Tensor

    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject

_FEWEST = 100


class SmashedData(Study):
    """What is rebuilt from the activations at a cut, and how much they depend on the input (`inversion_attack`).

    A decoder learns from validation samples to rebuild images, and is judged on test samples: `.psnr` in decibels and
    `.ssim`, beside `.blind_psnr` and `.blind_ssim` of the mean image, with a bootstrap over samples. Then come
    `.distance_correlation` and `.mutual_information` in nats (`smashed_mutual_information`). Samples that leave before
    the cut send nothing, and are not counted.
    """

    name: ClassVar[str] = "smashed_data"
    of_classes: ClassVar[bool] = False
    of_images: ClassVar[bool] = True

    cut: PositiveInt = 1
    """The first stage of an early exit that runs on the server."""
    layer: str | None = None
    """Cut the PyTorch network behind this layer instead, as in `named_modules()`."""
    samples: Annotated[int, Field(ge=_FEWEST)] = 500
    """Of the test and of the validation split each, drawn where there are more."""
    epochs: PositiveInt = 40
    """Training of the decoder."""
    seed: int = 0
    """Source of the draws, the decoder and the intervals."""

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        from dataclasses import fields

        from adaptkit.metrics.inversion import inversion_attack
        from adaptkit.metrics.measured import as_value
        from adaptkit.metrics.privacy import distance_correlation, smashed_mutual_information
        from adaptkit.study.subject import together

        known, wanted = (
            self._sent(subject, together(subject.draw(split, self.samples, self.seed))[0])
            for split in (subject.data.validation, subject.data.test)
        )
        fewest = min(len(known[1]), len(wanted[1]))
        if fewest < _FEWEST:
            raise DataError(
                f"{fewest} samples of a split are sent, of {self.samples} at most; what they tell takes {_FEWEST}: "
                "raise `samples`, or cut where more go on"
            )
        attack = inversion_attack(*known, *wanted, epochs=self.epochs, seed=self.seed)
        found = {field.name: getattr(attack, field.name) for field in fields(attack)}
        found["distance_correlation"] = distance_correlation(wanted[1], wanted[0], seed=self.seed)
        found["mutual_information"] = smashed_mutual_information(wanted[1], wanted[0], seed=self.seed)
        return {f"{self.name}.{name}": as_value(each, len(wanted[1]), False) for name, each in found.items()}

    def _sent(self, subject: Subject, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give the activations that cross the cut, and the images they are of."""
        import torch

        from adaptkit.metrics.running import activations_at
        from adaptkit.runtime.early_exit import StagedExits

        if self.layer is not None:
            return activations_at(subject.find_network(), self.layer, subject.normalized(images)), images
        stages = subject.model.runner
        if not isinstance(stages, StagedExits) or self.cut >= len(stages.paths):
            raise ModelError(
                f"there is no stage {self.cut} to cut an early exit before; give `layer` to cut the PyTorch network of "
                "another model"
            )
        crossing, going = stages.crossing(subject.given(images), self.cut)
        return torch.from_numpy(crossing), images[torch.from_numpy(going)]
