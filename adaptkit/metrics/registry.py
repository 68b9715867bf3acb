"""THE table of metrics that a name can ask for, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptkit.errors import DataError
from adaptkit.metrics import classification, inference, losses, regression
from adaptkit.metrics.forms import Form
from adaptkit.metrics.inference import Inference
from adaptkit.reading.problem import closest, either


@dataclass(frozen=True)
class Metric:
    """A metric and all that is to know of it.

    Args:
        inference: What it is, with its confidence interval, and how two models differ in it.
        needs: The form in which it takes the model's outputs.
        higher_is_better: Which way is up.
        fewest: Outputs that a model has to have.
        most: The same; any number where None.
        of_another_task: Whether the targets are of a task that the model was not trained for.
    """

    inference: Inference
    needs: Form
    higher_is_better: bool
    fewest: int = 2
    most: int | None = None
    of_another_task: bool = False

    def problem(self, outputs: int) -> str | None:
        """Say why it does not fit a model that gives so many outputs a sample, or None."""
        if outputs >= self.fewest and (self.most is None or outputs <= self.most):
            return None
        wanted = f"{'exactly' if self.most == self.fewest else 'at least'} {self.fewest}"
        return f"needs a model with {wanted} output{'s' * (self.fewest > 1)} a sample; this one has {outputs}"


def _top(k: int) -> Metric:
    return Metric(inference.share(partial(classification.in_top_k, k=k)), "scores", True, fewest=k + 1)


def _of_classes(formula: Callable[..., float], **settings: Any) -> Metric:
    most = 2 if settings else None
    return Metric(inference.counts(partial(formula, **settings)), "classes", True, most=most)


def _of_values(how: Inference, higher_is_better: bool = False) -> Metric:
    return Metric(how, "values", higher_is_better, fewest=1, most=1)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(inference.share(classification.right), "classes", True),
    "top2": _top(2),
    "top3": _top(3),
    "top5": _top(5),
    "top10": _top(10),
    "precision": _of_classes(classification.precision_of),
    "recall": _of_classes(classification.recall_of),
    "f1": _of_classes(classification.f1_of),
    "precision_positive": _of_classes(classification.precision_of, positive=1),
    "recall_positive": _of_classes(classification.recall_of, positive=1),
    "f1_positive": _of_classes(classification.f1_of, positive=1),
    "mcc": _of_classes(classification.mcc_of),
    "roc_auc": Metric(inference.area(), "probabilities", True),
    "ece": Metric(inference.calibration_error(), "probabilities", False),
    # What a model gives is turned into log-probabilities once, so that the loss is that of the right ones.
    "cross_entropy": Metric(inference.mean(losses.likelihood_losses), "log_probabilities", False),
    "nll": Metric(inference.mean(losses.likelihood_losses), "scores", False),
    "kl": Metric(inference.mean(losses.divergences), "log_probabilities", False),
    "leep": Metric(inference.transferability(), "probabilities", True, of_another_task=True),
    "mse": _of_values(inference.mean(regression.squared_errors)),
    "rmse": _of_values(inference.rows(regression.rmse)),
    "mae": _of_values(inference.mean(regression.absolute_errors)),
    "max_error": _of_values(inference.largest()),
    "r2": _of_values(inference.rows(regression.r2), higher_is_better=True),
    "explained_variance": _of_values(inference.rows(regression.explained_variance), higher_is_better=True),
}


def check_names(names: Sequence[str], known: Collection[str] = METRICS) -> None:
    """Refuse names that no metric has.

    Args:
        names: What was asked for.
        known: The metrics there are.

    Raises:
        DataError: There are some; the message names all of them and lists the metrics there are.

    Example:
        >>> check_names(["f1", "acuracy"])
        Traceback (most recent call last):
        adaptkit.errors.DataError: no metric is called 'acuracy'; did you mean 'accuracy'? There are accuracy, top2, ...
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        likely = closest(unknown[0], known)
        meant = f"; did you mean {likely!r}?" if likely else "."
        raise DataError(f"no metric is called {either(map(repr, unknown))}{meant} There are {', '.join(known)}")
