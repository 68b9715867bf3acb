"""The calibration curve of a pass over some samples that is made for another reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.calibration import bins_of, certainty
from adaptkit.metrics.forms import probabilities
from adaptkit.report.schema import Bin


@dataclass
class Curve:
    """Collects how sure a model is and whether it is right, batch by batch: a few bytes a sample.

    Args:
        sure: The highest probability of each sample.
        right: Whether it is that of the true class.
        fits: False once an output was no score of classes.
    """

    sure: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    fits: bool = True

    def add(self, given: Array, target: Array) -> None:
        """Add the outputs for some samples."""
        try:
            sure, right = certainty(probabilities(given), target)
        except DataError:
            self.fits = False
            return
        self.sure.append(sure)
        self.right.append(right)

    def bins(self) -> list[Bin]:
        """Give the curve; empty where outputs are no scores of classes, or there is no sample.

        Example:
            >>> curve = Curve()
            >>> curve.add(np.array([[0.25, 0.75], [0.75, 0.25]]), np.array([1, 1]))
            >>> [(each.confidence, each.accuracy) for each in curve.bins() if each.samples]
            [(0.75, 0.5)]
        """
        if not (self.fits and self.sure):
            return []
        return [Bin(**each._asdict()) for each in bins_of(np.concatenate(self.sure), np.concatenate(self.right))]
