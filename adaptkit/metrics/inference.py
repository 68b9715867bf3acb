"""How sure a metric is: for every kind of statistic, the value with the interval that suits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from adaptkit.metrics import calibration, classification, regression
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.intervals import absolute_sum, at_least, delong, exact_share
from adaptkit.metrics.resampling import percentile, resampled, resampled_counts

OfEach: TypeAlias = Callable[[Any, Any], Array]
"""(what the model gave, the target) -> one value a sample."""
Inference: TypeAlias = Callable[[Array, Array], Estimate]
"""(what the model gave, the target) -> the metric, and where that of all possible samples is."""


def share(right: OfEach) -> Inference:
    """Bound the share of samples for which something is right exactly."""

    def infer(given: Array, target: Array) -> Estimate:
        found = right(given, target)
        return exact_share(int(found.sum()), len(found))

    return infer


def mean(each: OfEach) -> Inference:
    """Resample what the metric is the mean of, computed once."""

    def infer(given: Array, target: Array) -> Estimate:
        found = each(given, target)
        return percentile(resampled(lambda part: float(part.mean()), [found]), float(found.mean()))

    return infer


def counts(formula: Callable[[Array], float]) -> Inference:
    """Resample the confusion matrix, of which the metric is a function."""

    def infer(given: Array, target: Array) -> Estimate:
        table = classification.confusion(given, target)
        return percentile(resampled_counts(formula, table), formula(table))

    return infer


def rows(function: Callable[[Any, Any], float]) -> Inference:
    """Resample the samples: fits any metric whose outputs are small."""
    return lambda given, target: percentile(resampled(function, [given, target]), function(given, target))


def area(given: Array, target: Array) -> Estimate:
    """Bound the area under the ROC curve."""
    classification.two_or_more(target)
    return delong(given, target)


def calibration_error(given: Array, target: Array) -> Estimate:
    """Bound the calibration error, which is a sum of absolute values."""
    certain = calibration.certainty(given, target)
    return absolute_sum(resampled(calibration.gaps, certain), calibration.gaps(*certain))


def largest(given: Array, target: Array) -> Estimate:
    """Bound the largest error from below alone."""
    return at_least(regression.max_error(given, target))
