"""Losses as metrics: means over samples in nats, from 0, lower is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array, labels
from adaptkit.metrics.forms import SUM_TOLERANCE, log_softmax, pair_of_scores


def cross_entropy(scores: ArrayLike, target: ArrayLike) -> float:
    """Mean of −log softmax(s)_y over samples, in nats; log C is a guess.

    Args:
        scores: N × C logits or logarithms of probabilities.
        target: N class numbers.

    Raises:
        DataError: The arrays do not fit, are empty, or hold NaN or infinity.

    Example:
        >>> round(cross_entropy([[0.0, 0.0], [0.0, 0.0]], [0, 1]), 4)
        0.6931
    """
    return float(cross_entropies(scores, target).mean())


def cross_entropies(scores: ArrayLike, target: ArrayLike) -> Array:
    """Give −log softmax(s)_y of every sample."""
    found, true = pair_of_scores(scores, target)
    losses: Array = -log_softmax(found)[np.arange(len(true)), true]
    return losses


def nll(log_probabilities: ArrayLike, target: ArrayLike) -> float:
    """Negative log-likelihood: the mean of −log p_y over samples, in nats.

    Args:
        log_probabilities: N × C, whose exponentials sum to 1; −∞ is a probability of 0.
        target: N class numbers.

    Returns:
        ∞ where a true class has the probability 0.

    Raises:
        DataError: The arrays do not fit, or are no logarithms of probabilities.

    Example:
        >>> round(nll(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1]), 4)
        0.4904
    """
    return float(likelihood_losses(log_probabilities, target).mean())


def likelihood_losses(log_probabilities: ArrayLike, target: ArrayLike) -> Array:
    """Give −log p_y of every sample."""
    logs = _distributions(log_probabilities)
    true = labels("target", target, *logs.shape)
    losses: Array = -logs[np.arange(len(true)), true]
    return losses


def kl(log_probabilities: ArrayLike, target: ArrayLike) -> float:
    """Kullback-Leibler divergence of probabilities q from the target's p: the mean of Σ p log(p / q), in nats.

    Args:
        log_probabilities: log q, N × C, whose exponentials sum to 1; −∞ is a probability of 0.
        target: p, N × C probabilities, such as those of a teacher; or N class numbers, each a probability of 1.

    Returns:
        ∞ where q is 0 and p is not.

    Raises:
        DataError: The arrays do not fit, or are no probabilities.

    Example:
        >>> round(kl(np.log([[0.5, 0.5]]), [[0.25, 0.75]]), 4)
        0.1308
    """
    return float(divergences(log_probabilities, target).mean())


def divergences(log_probabilities: ArrayLike, target: ArrayLike) -> Array:
    """Give Σ p log(p / q) of every sample."""
    p = np.asarray(target)
    if p.ndim == 1:
        return likelihood_losses(log_probabilities, target)
    logs, p = _distributions(log_probabilities), p.astype(np.float64)
    if p.shape != logs.shape:
        raise DataError(f"log-probabilities are {list(logs.shape)}, probabilities of the target {list(p.shape)}")
    if not (p.min(initial=0.0) >= 0 and (np.abs(p.sum(axis=1) - 1) < SUM_TOLERANCE).all()):
        raise DataError("the target is no probabilities: a row holds a negative value or does not sum to 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - logs), 0.0)
    found: Array = terms.sum(axis=1)
    return found


def _distributions(log_probabilities: ArrayLike) -> Array:
    logs = np.asarray(log_probabilities, np.float64)
    if logs.ndim != 2 or len(logs) == 0:
        raise DataError(f"log-probabilities are N × C, with one sample or more; got shape {list(logs.shape)}")
    # NaN and +∞ sum to no 1 either.
    off = ~(np.abs(np.exp(logs).sum(axis=1) - 1) < SUM_TOLERANCE)
    if off.any():
        raise DataError(
            f"outputs are no log-probabilities: the exponentials of sample {off.argmax()} do not sum to 1; "
            "cross_entropy takes any scores"
        )
    return logs
