"""The forms in which metrics take what a model answered, and everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptkit.errors import DataError

Array: TypeAlias = NDArray[Any]
Form = Literal["classes", "scores", "probabilities", "log_probabilities", "values"]

_SUM_TOLERANCE = 1e-3
"""How far the probabilities of a sample may sum from 1: those of 8-bit files do by rounding."""


def class_scores(outputs: ArrayLike) -> Array:
    """Take outputs as they are: N × C, one score a class, the highest wins.

    Raises:
        DataError: They are not N × C with two classes or more, or a value is NaN or infinite.
    """
    scores = np.asarray(outputs)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"scores of classes are N × C with two classes or more; got shape {list(scores.shape)}")
    return _finite(scores)


def top_classes(outputs: ArrayLike) -> Array:
    """Take the class with the highest score, the first of equal ones.

    Example:
        >>> top_classes([[0.1, 0.9], [2.0, 2.0]])
        array([1, 0])
    """
    classes: Array = class_scores(outputs).argmax(axis=1)
    return classes


def probabilities(outputs: ArrayLike) -> Array:
    """Give N × C probabilities: outputs that are some already as they are, others by softmax.

    Probabilities are outputs of which no value is negative and every row sums to 1, within 0.001.

    Example:
        >>> probabilities([[0.25, 0.75]]), probabilities([[1.0, 1.0]])
        (array([[0.25, 0.75]]), array([[0.5, 0.5]]))
    """
    scores = class_scores(outputs).astype(np.float64)
    if are_probabilities(scores):
        shares: Array = scores / scores.sum(axis=1, keepdims=True)
        return shares
    softmax: Array = np.exp(log_softmax(scores))
    return softmax


def log_probabilities(outputs: ArrayLike) -> Array:
    """Give the logarithms of `probabilities`, −∞ where one is 0."""
    scores = class_scores(outputs).astype(np.float64)
    if not are_probabilities(scores):
        return log_softmax(scores)
    with np.errstate(divide="ignore"):
        logs: Array = np.log(scores / scores.sum(axis=1, keepdims=True))
    return logs


def values(outputs: ArrayLike) -> Array:
    """Take numbers as they are, N × 1 as N.

    Raises:
        DataError: There are several outputs a sample, or a value is NaN or infinite.
    """
    numbers = np.asarray(outputs)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise DataError(f"numbers are N or N × 1, one a sample; got shape {list(numbers.shape)}")
    return _finite(numbers).astype(np.float64)


FORMS: Mapping[Form, Callable[[ArrayLike], Array]] = {
    "classes": top_classes,
    "scores": class_scores,
    "probabilities": probabilities,
    "log_probabilities": log_probabilities,
    "values": values,
}


def labels(target: ArrayLike, classes: int | None = None) -> Array:
    """Check class numbers.

    Args:
        target: N whole numbers from 0.
        classes: How many there are; unknown where None.

    Raises:
        DataError: There are none, they are not whole numbers from 0, or one is of no class.
    """
    found = np.asarray(target)
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        raise DataError(f"class numbers are N whole numbers; got {found.dtype} of shape {list(found.shape)}")
    _at_least_one(found)
    wrong = (found < 0) | (found >= (np.inf if classes is None else classes))
    if wrong.any():
        at = int(np.argmax(wrong))
        known = "whole numbers from 0" if classes is None else f"0 to {classes - 1}"
        raise DataError(f"sample {at} has the class {found[at]}; classes are {known}")
    return found.astype(np.int64)


def pair_of_classes(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check predicted against true class numbers."""
    return _equally_many(labels(predicted), labels(target))


def pair_of_scores(scores: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check N × C scores against true class numbers."""
    found = class_scores(scores)
    return _equally_many(found, labels(target, found.shape[1]))


def pair_of_values(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check predicted against true numbers."""
    found = _equally_many(values(predicted), values(target))
    _at_least_one(found[0])
    return found


def are_probabilities(scores: Array) -> bool:
    """Say whether no value is negative and every row sums to 1."""
    return bool(scores.min(initial=0.0) >= 0 and (np.abs(scores.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def log_softmax(scores: Array) -> Array:
    """Give log(exp sᵢ / Σⱼ exp sⱼ) along the last axis, without overflow."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def _equally_many(given: Array, target: Array) -> tuple[Array, Array]:
    if len(given) != len(target):
        raise DataError(f"there are {len(given)} outputs and {len(target)} targets: give one target a sample")
    return given, target


def _at_least_one(found: Array) -> None:
    if len(found) == 0:
        raise DataError("there is no sample: a metric needs at least one")


def _finite(found: Array) -> Array:
    bad = ~np.isfinite(found).all(axis=tuple(range(1, found.ndim)))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(found)} outputs hold NaN or infinity, first at sample {bad.argmax()}"
        )
    return found
