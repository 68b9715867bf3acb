"""How sure a metric is, of one model and of the difference of two: what suits each kind of statistic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics import calibration, classification, regression, transfer
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.estimate import ALIKE, CONFIDENCE, Estimate, unbounded
from adaptkit.metrics.intervals import absolute_sum, area_deviation, at_least, delong, exact_share, placements
from adaptkit.metrics.resampling import bootstrap, percentile, reflected, resampled, resampled_counts

OfEach: TypeAlias = Callable[[Any, Any], Array]
"""(what the model gave, the target) -> one value a sample."""
OfAll: TypeAlias = Callable[[Any, Any], float]
"""The same -> one value."""


@dataclass(frozen=True)
class Inference:
    """A metric, and where that of all possible samples is.

    Args:
        of_one: (what the model gave, the target) -> the metric.
        of_difference: (what one model gave, what another gave to the same samples, the target) -> the metric of the
            second minus that of the first; samples are drawn with the answers of both.
    """

    of_one: Callable[[Array, Array], Estimate]
    of_difference: Callable[[Array, Array, Array], Estimate]


def share(right: OfEach) -> Inference:
    """Bound the share of samples for which something is right exactly; a difference by bootstrap."""

    def of_one(given: Array, target: Array) -> Estimate:
        found = right(given, target)
        return exact_share(int(found.sum()), len(found))

    return Inference(of_one, _difference_of_means(right))


def mean(each: OfEach) -> Inference:
    """Resample what the metric is the mean of, computed once."""

    def of_one(given: Array, target: Array) -> Estimate:
        found = each(given, target)
        return percentile(resampled(_mean, [found]), _mean(found))

    return Inference(of_one, _difference_of_means(each))


def counts(formula: Callable[[Array], float]) -> Inference:
    """Resample the confusion matrix, of which the metric is a function."""

    def of_one(given: Array, target: Array) -> Estimate:
        table = classification.confusion(given, target)
        return percentile(resampled_counts(formula, table), formula(table))

    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        cells, seen = np.unique(np.stack([target, first, second]), axis=1, return_counts=True)
        classes = int(cells.max()) + 1

        def gain(drawn: Array) -> float:
            before, after = (_matrix(cells[0], answers, drawn, classes) for answers in cells[1:])
            return formula(after) - formula(before)

        return percentile(resampled_counts(gain, seen), gain(seen))

    return Inference(of_one, of_difference)


def rows(function: OfAll) -> Inference:
    """Resample the samples: fits any metric whose outputs are small."""
    return Inference(
        lambda given, target: percentile(resampled(function, [given, target]), function(given, target)),
        _difference_of_rows(function),
    )


def area() -> Inference:
    """Bound the area under the ROC curve, and the difference of two, by DeLong's variance."""

    def of_one(given: Array, target: Array) -> Estimate:
        classification.two_or_more(target)
        return delong(given, target)

    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        classification.two_or_more(target)
        (before, its), (after, own) = placements(first, target), placements(second, target)
        deviation = area_deviation(own - its, target)
        if not deviation > 0:
            return unbounded(after - before, ALIKE)
        width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * deviation
        return Estimate(after - before, after - before - width, after - before + width, "DeLong, of both on the same")

    return Inference(of_one, of_difference)


def calibration_error() -> Inference:
    """Bound the calibration error, which is a sum of absolute values; a difference by bootstrap."""

    def of_one(given: Array, target: Array) -> Estimate:
        certain = calibration.certainty(given, target)
        return absolute_sum(resampled(calibration.gaps, certain), calibration.gaps(*certain))

    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        certain = (*calibration.certainty(first, target), *calibration.certainty(second, target))

        def gain(sure: Array, right: Array, other_sure: Array, other_right: Array) -> float:
            before, after = (calibration.gaps(*each) for each in ((sure, right), (other_sure, other_right)))
            return float(np.abs(after).sum() - np.abs(before).sum())

        return percentile(resampled(gain, certain), gain(*certain))

    return Inference(of_one, of_difference)


def largest() -> Inference:
    """Bound the largest error from below alone; nothing is known of a difference of two."""

    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        gain = regression.max_error(second, target) - regression.max_error(first, target)
        return unbounded(gain, "none: no sample bounds a maximum")

    return Inference(lambda given, target: at_least(regression.max_error(given, target)), of_difference)


def transferability() -> Inference:
    """Bound LEEP, which is biased, and so is a difference of two."""

    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        def gain(before: Array, after: Array, classes: Array) -> float:
            return transfer.leep_of(after, classes) - transfer.leep_of(before, classes)

        classes = transfer.two_or_more(target)
        arrays = [first, second, classes]
        return reflected(resampled(gain, arrays, transfer.DRAWS), gain(*arrays))

    return Inference(transfer.leep, of_difference)


def _difference_of_means(each: OfEach) -> Callable[[Array, Array, Array], Estimate]:
    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        before, after = (each(given, target).astype(np.float64) for given in (first, second))
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            raise DataError("one of the models is infinitely wrong on a sample: there is no difference to bound")
        return bootstrap(np.mean, [after - before])

    return of_difference


def _difference_of_rows(function: OfAll) -> Callable[[Array, Array, Array], Estimate]:
    def of_difference(first: Array, second: Array, target: Array) -> Estimate:
        def gain(before: Array, after: Array, true: Array) -> float:
            return function(after, true) - function(before, true)

        return percentile(resampled(gain, [first, second, target]), gain(first, second, target))

    return of_difference


def _matrix(target: Array, answers: Array, drawn: Array, classes: int) -> Array:
    found = np.bincount(target * classes + answers, drawn, classes * classes)
    return found.reshape(classes, classes)


def _mean(values: Array) -> float:
    return float(values.mean())
