"""The forms in which metrics take what a model answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.metrics.arrays import Array, labels, numbers, same_length, scores

Form = Literal["classes", "scores", "probabilities", "log_probabilities", "values"]

SUM_TOLERANCE = 1e-3
"""How far the probabilities of a sample may sum from 1: those of 8-bit files do by rounding."""


def class_scores(outputs: ArrayLike) -> Array:
    """Take outputs as they are: N × C, one score a class, the highest wins.

    Raises:
        DataError: They are not N × C with two classes or more, or a value is NaN or infinite.
    """
    return scores("outputs", outputs)


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
    found = class_scores(outputs)
    if are_probabilities(found):
        shares: Array = found / found.sum(axis=1, keepdims=True)
        return shares
    softmax: Array = np.exp(log_softmax(found))
    return softmax


def log_probabilities(outputs: ArrayLike) -> Array:
    """Give the logarithms of `probabilities`, −∞ where one is 0."""
    found = class_scores(outputs)
    if not are_probabilities(found):
        return log_softmax(found)
    with np.errstate(divide="ignore"):
        logs: Array = np.log(found / found.sum(axis=1, keepdims=True))
    return logs


def values(outputs: ArrayLike) -> Array:
    """Take numbers as they are, N × 1 as N.

    Raises:
        DataError: There are several outputs a sample, or a value is NaN or infinite.
    """
    return numbers("outputs", outputs)


FORMS: Mapping[Form, Callable[[ArrayLike], Array]] = {
    "classes": top_classes,
    "scores": class_scores,
    "probabilities": probabilities,
    "log_probabilities": log_probabilities,
    "values": values,
}


def pair_of_classes(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check predicted against true class numbers."""
    found = labels("outputs", predicted)
    return found, labels("target", target, len(found))


def pair_of_scores(outputs: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check N × C scores against true class numbers."""
    found = class_scores(outputs)
    return found, labels("target", target, *found.shape)


def pair_of_values(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Check predicted against true numbers."""
    found, true = values(predicted), numbers("target", target)
    same_length("target", len(true), len(found))
    return found, true


def are_probabilities(found: Array) -> bool:
    """Say whether no value is negative and every row sums to 1."""
    return bool(found.min(initial=0.0) >= 0 and (np.abs(found.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def log_softmax(found: Array) -> Array:
    """Give log(exp sᵢ / Σⱼ exp sⱼ) along the last axis, without overflow."""
    shifted = found - found.max(axis=-1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs
