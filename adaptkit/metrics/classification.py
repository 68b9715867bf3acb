"""How well classes are told apart: functions of arrays, without a unit, higher is better.

Where a class is needed, it is its number from 0. Nothing in here loads scikit-learn before it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.forms import pair_of_classes, pair_of_scores


def accuracy(predicted: ArrayLike, target: ArrayLike) -> float:
    """Share of samples whose predicted class is the true one, from 0 to 1.

    Args:
        predicted: N class numbers.
        target: N class numbers.

    Raises:
        DataError: They are no class numbers, not equally many, or none.

    Example:
        >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
        0.75
    """
    return float(right(predicted, target).mean())


def right(predicted: ArrayLike, target: ArrayLike) -> Array:
    """Say for every sample whether the predicted class is the true one."""
    ours, theirs = pair_of_classes(predicted, target)
    found: Array = ours == theirs
    return found


def top_k(scores: ArrayLike, target: ArrayLike, k: int) -> float:
    """Share of samples whose true class is among those with the k highest scores, from 0 to 1.

    Of equal scores the lower class number comes first, as with argmax, so that top-1 is the accuracy.

    Args:
        scores: N × C.
        target: N class numbers.
        k: From 1 to C − 1; among all C classes the true one always is.

    Raises:
        DataError: The arrays do not fit, or k does not fit the number of classes.

    Example:
        >>> top_k([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
        0.5
    """
    return float(in_top_k(scores, target, k).mean())


def in_top_k(scores: ArrayLike, target: ArrayLike, k: int) -> Array:
    """Say for every sample whether the true class is among those with the k highest scores."""
    found, true = pair_of_scores(scores, target)
    classes = found.shape[1]
    if not 1 <= k < classes:
        raise DataError(f"top-{k} of {classes} classes says nothing: k is from 1 to {classes - 1}")
    own = found[np.arange(len(true)), true][:, None]
    earlier = np.arange(classes)[None] < true[:, None]
    rank = (found > own).sum(axis=1) + ((found == own) & earlier).sum(axis=1)
    inside: Array = rank < k
    return inside


def precision(predicted: ArrayLike, target: ArrayLike, positive: int | None = None) -> float:
    """Share of the samples predicted to be of a class that are of it: TP / (TP + FP), from 0 to 1.

    Args:
        predicted: N class numbers.
        target: N class numbers.
        positive: The class; where None, the unweighted mean over all classes that occur in the target ("macro").

    Returns:
        0 for a class that is never predicted.

    Raises:
        DataError: The arrays do not fit, or the positive class does not occur in the target.

    Example:
        >>> precision([0, 1, 1, 1], [0, 0, 1, 1]), precision([0, 1, 1, 1], [0, 0, 1, 1], positive=0)
        (0.8333333333333333, 1.0)
    """
    return precision_of(confusion(predicted, target), positive)


def recall(predicted: ArrayLike, target: ArrayLike, positive: int | None = None) -> float:
    """Share of the samples of a class that are predicted to be of it: TP / (TP + FN), from 0 to 1.

    The mean over classes is also called balanced accuracy.

    Args:
        predicted: N class numbers.
        target: N class numbers.
        positive: The class; where None, the unweighted mean over all classes that occur in the target ("macro").

    Raises:
        DataError: The arrays do not fit, or the positive class does not occur in the target.

    Example:
        >>> recall([0, 1, 1, 1], [0, 0, 1, 1])
        0.75
    """
    return recall_of(confusion(predicted, target), positive)


def f1(predicted: ArrayLike, target: ArrayLike, positive: int | None = None) -> float:
    """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), from 0 to 1.

    Args:
        predicted: N class numbers.
        target: N class numbers.
        positive: The class; where None, the unweighted mean over all classes that occur in the target ("macro").

    Raises:
        DataError: The arrays do not fit, or the positive class does not occur in the target.

    Example:
        >>> round(f1([0, 1, 1, 1], [0, 0, 1, 1]), 4)
        0.7333
    """
    return f1_of(confusion(predicted, target), positive)


def mcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Matthews' correlation of predicted and true classes, from −1 to 1; 0 is no better than chance.

    With c right of n samples, p_k predicted to be of class k and t_k that are:
    (c n − Σ p_k t_k) / √((n² − Σ p_k²) (n² − Σ t_k²)) (Gorodkin 2004, "Comparing two K-category assignments by a
    K-category correlation coefficient").

    Args:
        predicted: N class numbers.
        target: N class numbers.

    Returns:
        0, too, where all samples are of one class or predicted to be.

    Raises:
        DataError: The arrays do not fit.

    Example:
        >>> round(mcc([0, 1, 1, 1], [0, 0, 1, 1]), 4)
        0.5774
    """
    return mcc_of(confusion(predicted, target))


def roc_auc(scores: ArrayLike, target: ArrayLike) -> float:
    """Probability that a sample of a class has a higher score for it than one of another class, ties half.

    That is the area under the ROC curve, one class against the rest, averaged unweighted over the classes that occur in
    the target; from 0 to 1, 0.5 is chance.

    Args:
        scores: N × C. Scores of different samples are compared: probabilities, rather than logits.
        target: N class numbers.

    Raises:
        DataError: The arrays do not fit, or only one class occurs.

    Example:
        >>> roc_auc([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], [0, 0, 1, 1])
        0.75
    """
    found, true = pair_of_scores(scores, target)
    area = _sklearn().roc_auc_score
    return float(np.mean([area(true == each, found[:, each]) for each in two_or_more(true)]))


def two_or_more(target: Array) -> Array:
    """List the classes that occur.

    Raises:
        DataError: It is one alone.
    """
    occurring = np.unique(target)
    if len(occurring) < 2:
        raise DataError(f"ROC AUC compares classes, and all {len(target)} samples are of class {occurring[0]}")
    return occurring


def confusion(predicted: ArrayLike, target: ArrayLike) -> Array:
    """Count the samples of each true class (row) that were predicted to be of each class (column)."""
    ours, theirs = pair_of_classes(predicted, target)
    classes = np.arange(max(ours.max(), theirs.max(), 1) + 1)
    matrix: Array = _sklearn().confusion_matrix(theirs, ours, labels=classes)
    return matrix


def precision_of(matrix: Array, positive: int | None = None) -> float:
    """Give the precision that a confusion matrix shows."""
    return _average(matrix.diagonal(), matrix.sum(axis=0), matrix, positive)


def recall_of(matrix: Array, positive: int | None = None) -> float:
    """Give the recall that a confusion matrix shows."""
    return _average(matrix.diagonal(), matrix.sum(axis=1), matrix, positive)


def f1_of(matrix: Array, positive: int | None = None) -> float:
    """Give the F1 that a confusion matrix shows."""
    return _average(2 * matrix.diagonal(), matrix.sum(axis=0) + matrix.sum(axis=1), matrix, positive)


def mcc_of(matrix: Array) -> float:
    """Give Matthews' correlation that a confusion matrix shows."""
    given, true = matrix.sum(axis=0, dtype=np.float64), matrix.sum(axis=1, dtype=np.float64)
    samples = true.sum()
    spread = (samples**2 - (given**2).sum()) * (samples**2 - (true**2).sum())
    return float((matrix.trace() * samples - given @ true) / spread**0.5) if spread > 0 else 0.0


def _average(hits: Array, of: Array, matrix: Array, positive: int | None) -> float:
    occurs = matrix.sum(axis=1) > 0
    if positive is not None and (positive >= len(matrix) or not occurs[positive]):
        raise DataError(f"no sample is of class {positive}, which is to be the positive one")
    shares = np.divide(hits, of, out=np.zeros(len(matrix)), where=of > 0)
    return float(shares[occurs].mean() if positive is None else shares[positive])


def _sklearn() -> Any:
    return import_module("sklearn.metrics")
