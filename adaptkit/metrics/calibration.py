"""Whether a model that is 80 % sure is right four times in five."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.forms import are_probabilities, pair_of_scores

BINS = 15


class Bin(NamedTuple):
    """Samples whose highest probability is above `low` and at most `high`.

    Args:
        low: From 0 to 1.
        high: From 0 to 1.
        samples: How many there are.
        confidence: Mean of their highest probabilities; None where there are none.
        accuracy: Share of them that is right; None where there are none.
    """

    low: float
    high: float
    samples: int
    confidence: float | None
    accuracy: float | None


def ece(probabilities: ArrayLike, target: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error Σ_b (n_b / n) |accuracy_b − confidence_b|, from 0 to 1, lower is better.

    Samples are put into bins of equal width by their highest probability (Guo et al. 2017, "On calibration of modern
    neural networks", equation 3). Few samples make it too high: of a perfectly calibrated model it is about
    √(2 bins · p (1 − p) / (π n)).

    Args:
        probabilities: N × C, rows sum to 1.
        target: N class numbers.
        bins: Of the calibration curve.

    Raises:
        DataError: The arrays do not fit, or are no probabilities.

    Example:
        >>> round(ece([[0.2, 0.8], [0.3, 0.7]], [1, 1]), 4)
        0.25
    """
    return float(np.abs(gaps(*certainty(probabilities, target), bins)).sum())


def reliability(probabilities: ArrayLike, target: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Give the calibration curve: confidence and accuracy, bin by bin.

    Args:
        probabilities: N × C, rows sum to 1.
        target: N class numbers.
        bins: How many, of equal width from 0 to 1.

    Example:
        >>> reliability([[0.2, 0.8], [0.3, 0.7]], [1, 0], bins=2)[1]
        Bin(low=0.5, high=1.0, samples=2, confidence=0.75, accuracy=0.5)
    """
    return bins_of(*certainty(probabilities, target), bins)


def bins_of(confidence: Array, right: Array, bins: int = BINS) -> list[Bin]:
    """Give the calibration curve of samples whose certainty is known."""
    counts, sure, hits = _sums(confidence, right, bins)
    edges = np.linspace(0, 1, bins + 1).tolist()
    return [
        Bin(low, high, int(n), float(c / n) if n else None, float(r / n) if n else None)
        for low, high, n, c, r in zip(edges[:-1], edges[1:], counts, sure, hits, strict=True)
    ]


def certainty(probabilities: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Give the highest probability of every sample, and whether it is that of the true class.

    Raises:
        DataError: The arrays do not fit, or are no probabilities.
    """
    found, true = pair_of_scores(probabilities, target)
    if not are_probabilities(found):
        raise DataError("calibration is of probabilities; a row holds a negative value or does not sum to 1")
    return np.minimum(found.max(axis=1).astype(np.float64), 1.0), found.argmax(axis=1) == true


def gaps(confidence: Array, right: Array, bins: int = BINS) -> Array:
    """Give what each bin adds to confidence − accuracy over all samples: (n_b / n) (confidence_b − accuracy_b)."""
    _, sure, hits = _sums(confidence, right, bins)
    found: Array = (sure - hits) / len(confidence)
    return found


def _sums(confidence: Array, right: Array, bins: int) -> tuple[Array, Array, Array]:
    if bins < 1:
        raise DataError(f"a calibration curve has at least one bin; got bins={bins}")
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts, sure, hits = (np.bincount(place, weight, bins) for weight in (None, confidence, right))
    return counts, sure, hits
