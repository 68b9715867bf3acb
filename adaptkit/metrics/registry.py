"""THE table of metrics that a name can ask for, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptkit.errors import DataError
from adaptkit.metrics import calibration, classification, losses, regression
from adaptkit.metrics.forms import Array, Form
from adaptkit.metrics.intervals import (
    Interval,
    absolute_sum,
    at_least,
    clopper_pearson,
    delong,
    percentile,
    resampled,
    resampled_counts,
)
from adaptkit.reading.problem import closest, either

Function = Callable[[Any, Any], float]
"""(what the model gave, in the form that is needed; the target) -> the metric."""
FindInterval = Callable[[Array, Array, float], Interval]
"""(what the model gave, the target, the metric's value) -> where the metric of all possible samples is."""


@dataclass(frozen=True)
class Metric:
    """A metric and all that is to know of it.

    Args:
        function: What it is.
        needs: The form in which it takes the model's outputs.
        higher_is_better: Which way is up.
        interval: How its confidence interval is found.
        fewest: Outputs that a model has to have.
        most: The same; any number where None.
    """

    function: Function
    needs: Form
    higher_is_better: bool
    interval: FindInterval
    fewest: int = 2
    most: int | None = None

    def problem(self, outputs: int) -> str | None:
        """Say why it does not fit a model that gives so many outputs a sample, or None."""
        if outputs >= self.fewest and (self.most is None or outputs <= self.most):
            return None
        wanted = f"{'exactly' if self.most == self.fewest else 'at least'} {self.fewest}"
        return f"needs a model with {wanted} output{'s' * (self.fewest > 1)} a sample; this one has {outputs}"


def _share(right: Callable[[Any, Any], Array]) -> FindInterval:
    """Bound the share of samples for which something is right exactly."""
    return lambda given, target, value: clopper_pearson(right(given, target))


def _mean(each: Callable[[Any, Any], Array]) -> FindInterval:
    """Resample what the metric is the mean of, computed once."""
    return lambda given, target, value: percentile(
        resampled(lambda part: float(part.mean()), [each(given, target)]), value
    )


def _counts(formula: Callable[[Array], float]) -> FindInterval:
    """Resample the confusion matrix, of which the metric is a function."""
    return lambda given, target, value: percentile(
        resampled_counts(formula, classification.confusion(given, target)), value
    )


def _rows(function: Function) -> FindInterval:
    """Resample the samples: fits any metric whose outputs are small."""
    return lambda given, target, value: percentile(resampled(function, [given, target]), value)


def _top(k: int) -> Metric:
    of_each = partial(classification.in_top_k, k=k)
    return Metric(partial(classification.top_k, k=k), "scores", True, _share(of_each), fewest=k + 1)


def _of_classes(function: Callable[..., float], formula: Callable[..., float], **settings: Any) -> Metric:
    most = 2 if settings else None
    return Metric(partial(function, **settings), "classes", True, _counts(partial(formula, **settings)), most=most)


def _of_values(function: Function, interval: FindInterval, higher_is_better: bool = False) -> Metric:
    return Metric(function, "values", higher_is_better, interval, fewest=1, most=1)


def _calibration(given: Array, target: Array, value: float) -> Interval:
    certain = calibration.certainty(given, target)
    return absolute_sum(resampled(calibration.gaps, certain), calibration.gaps(*certain))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(classification.accuracy, "classes", True, _share(classification.right)),
    "top2": _top(2),
    "top3": _top(3),
    "top5": _top(5),
    "top10": _top(10),
    "precision": _of_classes(classification.precision, classification.precision_of),
    "recall": _of_classes(classification.recall, classification.recall_of),
    "f1": _of_classes(classification.f1, classification.f1_of),
    "precision_positive": _of_classes(classification.precision, classification.precision_of, positive=1),
    "recall_positive": _of_classes(classification.recall, classification.recall_of, positive=1),
    "f1_positive": _of_classes(classification.f1, classification.f1_of, positive=1),
    "mcc": _of_classes(classification.mcc, classification.mcc_of),
    "roc_auc": Metric(classification.roc_auc, "probabilities", True, lambda given, target, _: delong(given, target)),
    "ece": Metric(calibration.ece, "probabilities", False, _calibration),
    # What a model gives is turned into log-probabilities once, so that the loss is that of the right ones.
    "cross_entropy": Metric(losses.nll, "log_probabilities", False, _mean(losses.likelihood_losses)),
    "nll": Metric(losses.nll, "scores", False, _mean(losses.likelihood_losses)),
    "kl": Metric(losses.kl, "log_probabilities", False, _mean(losses.divergences)),
    "mse": _of_values(regression.mse, _mean(regression.squared_errors)),
    "rmse": _of_values(regression.rmse, _rows(regression.rmse)),
    "mae": _of_values(regression.mae, _mean(regression.absolute_errors)),
    "max_error": _of_values(regression.max_error, lambda given, target, value: at_least(value)),
    "r2": _of_values(regression.r2, _rows(regression.r2), higher_is_better=True),
    "explained_variance": _of_values(
        regression.explained_variance, _rows(regression.explained_variance), higher_is_better=True
    ),
}


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no metric has.

    Raises:
        DataError: There are some; the message names all of them and lists the metrics there are.

    Example:
        >>> check_names(["f1", "acuracy"])
        Traceback (most recent call last):
        adaptkit.errors.DataError: no metric is called 'acuracy'; did you mean 'accuracy'? There are accuracy, top2, ...
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        likely = closest(unknown[0], METRICS)
        meant = f"; did you mean {likely!r}?" if likely else "."
        raise DataError(f"no metric is called {either(map(repr, unknown))}{meant} There are {', '.join(METRICS)}")


def misfits(names: Sequence[str], outputs: int) -> list[tuple[int, str]]:
    """List the metrics that do not fit a model, as (place in the list, what is wrong).

    Example:
        >>> misfits(["accuracy", "top5"], 3)
        [(1, 'needs a model with at least 6 outputs a sample; this one has 3')]
    """
    found = [(index, METRICS[name].problem(outputs)) for index, name in enumerate(names)]
    return [(index, problem) for index, problem in found if problem is not None]
