"""Metrics by name, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array, same_length
from adaptkit.metrics.calibration import reliability
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.forms import FORMS, probabilities
from adaptkit.metrics.registry import METRICS, check_names
from adaptkit.report.schema import Bin, MetricValue


@dataclass
class Outputs:
    """Collects what a model answers, batch by batch.

    Args:
        given: Its outputs.
        target: The truth.
    """

    given: list[Array] = field(default_factory=list)
    target: list[Array] = field(default_factory=list)

    def add(self, given: Array, target: Array) -> None:
        """Add the outputs for some samples."""
        self.given.append(given)
        self.target.append(target)

    def measure(self, names: Sequence[str], strict: bool = True) -> dict[str, MetricValue]:
        """Measure metrics over all that was added; see `measure`."""
        return measure(names, *self.together(), strict)

    def measure_against(self, names: Sequence[str], first: Outputs) -> dict[str, MetricValue]:
        """Measure how these answers differ from those of another model; see `measure_difference`."""
        given, target = self.together()
        return measure_difference(names, first.together()[0], given, target)

    def together(self) -> tuple[Array, Array]:
        """Give all outputs and all targets.

        Raises:
            DataError: There is no sample.
        """
        if not self.target:
            raise DataError("there is no sample: a metric needs at least one")
        return np.concatenate(self.given), np.concatenate(self.target)


def measure(names: Sequence[str], outputs: ArrayLike, target: ArrayLike, strict: bool = True) -> dict[str, MetricValue]:
    """Measure metrics by name, each with a 95 % confidence interval; the same input gives the same numbers.

    Args:
        names: Of `METRICS`.
        outputs: N × C: scores of classes, which are taken as probabilities where they are some. N or N × 1: numbers.
        target: N class numbers, or numbers.
        strict: Raise where a metric is not defined on these samples; else its value is None, with the reason.

    Raises:
        DataError: A name is unknown, or a metric is not defined.

    Example:
        >>> found = measure(["accuracy"], [[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [1, 0, 0])["accuracy"]
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), found.interval
        (0.667, 0.094, 0.992, 'exact (Clopper-Pearson)')
    """
    check_names(names)
    given, true = np.asarray(outputs), np.asarray(target)
    found = {}
    for name in names:
        try:
            found[name] = _measured(name, given, true)
        except DataError as error:
            if strict:
                raise DataError(f"{name}: {error}") from None
            higher = METRICS[name].higher_is_better
            found[name] = MetricValue(value=None, samples=len(true), higher_is_better=higher, problem=str(error))
    return found


def measure_difference(
    names: Sequence[str], first: ArrayLike, second: ArrayLike, target: ArrayLike
) -> dict[str, MetricValue]:
    """Measure how two models differ that answered the same samples, each difference with a 95 % confidence interval.

    Args:
        names: Of `METRICS`.
        first: What one model gave, as in `measure`.
        second: What the other gave to the same samples, in the same order.
        target: N class numbers, or numbers.

    Returns:
        The metrics of the second minus those of the first.

    Raises:
        DataError: A name is unknown, a metric is not defined, or one model answered more samples.

    Example:
        >>> given = [[0.2, 0.8], [0.9, 0.1]] * 20
        >>> found = measure_difference(["accuracy"], given, given[::-1], [1, 0] * 20)["accuracy"]
        >>> found.value, found.interval
        (-1.0, 'none: all resamples are alike')
    """
    check_names(names)
    before, after, true = (np.asarray(each) for each in (first, second, target))
    return {name: _difference(name, before, after, true) for name in names}


def _difference(name: str, first: Array, second: Array, target: Array) -> MetricValue:
    metric = METRICS[name]
    try:
        for given in (first, second):
            same_length("target", len(target), len(given))
            _require_fit(name, given)
        given_first, given_second = (FORMS[metric.needs](given) for given in (first, second))
        found = metric.inference.of_difference(given_first, given_second, target)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return as_value(found, len(target), metric.higher_is_better)


def _measured(name: str, outputs: Array, target: Array) -> MetricValue:
    metric = METRICS[name]
    _require_fit(name, outputs)
    given = FORMS[metric.needs](outputs)
    found = metric.inference.of_one(given, target)
    shown = as_value(found, len(target), metric.higher_is_better)
    if name == "ece":
        shown.bins = [Bin(**each._asdict()) for each in reliability(probabilities(outputs), target)]
    return shown


def _require_fit(name: str, outputs: Array) -> None:
    problem = METRICS[name].problem(int(np.prod(outputs.shape[1:])))
    if problem is not None:
        raise DataError(problem)


def as_value(found: Estimate, samples: int, higher_is_better: bool) -> MetricValue:
    """Write an estimate as reports have it."""
    low, high = found.ends
    return MetricValue(
        value=found.value,
        low=low,
        high=high,
        interval=found.method,
        samples=samples,
        higher_is_better=higher_is_better,
    )
