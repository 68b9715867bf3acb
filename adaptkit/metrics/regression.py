"""How far numbers are from the true ones: functions of two arrays of N numbers.

They are formulas of a line in numpy: a bootstrap calls them a thousand times, and scikit-learn's checks take longer
than the sums.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.forms import pair_of_values


def mse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean squared error (1/n) Σ (ŷ − y)², from 0, in the unit of the target squared; lower is better.

    Args:
        predicted: N or N × 1 numbers.
        target: N or N × 1 numbers.

    Raises:
        DataError: The arrays do not fit, are empty, or hold NaN or infinity.

    Example:
        >>> mse([1.0, 4.0], [1.0, 2.0])
        2.0
    """
    return float(squared_errors(predicted, target).mean())


def squared_errors(predicted: ArrayLike, target: ArrayLike) -> Array:
    """Give (ŷ − y)² of every sample."""
    found, true = pair_of_values(predicted, target)
    errors: Array = (found - true) ** 2
    return errors


def rmse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Square root of the mean squared error, from 0, in the unit of the target; lower is better.

    Example:
        >>> rmse([0.0, 0.0], [3.0, 3.0])
        3.0
    """
    return math.sqrt(mse(predicted, target))


def mae(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean absolute error (1/n) Σ |ŷ − y|, from 0, in the unit of the target; lower is better.

    Example:
        >>> mae([1.0, 4.0], [1.0, 2.0])
        1.0
    """
    return float(absolute_errors(predicted, target).mean())


def absolute_errors(predicted: ArrayLike, target: ArrayLike) -> Array:
    """Give |ŷ − y| of every sample."""
    found, true = pair_of_values(predicted, target)
    errors: Array = np.abs(found - true)
    return errors


def max_error(predicted: ArrayLike, target: ArrayLike) -> float:
    """Largest absolute error, from 0, in the unit of the target; lower is better.

    It is that of these samples: others may have a larger one, and no sample bounds how large.

    Example:
        >>> max_error([1.0, 4.0], [1.0, 2.0])
        2.0
    """
    return float(absolute_errors(predicted, target).max())


def r2(predicted: ArrayLike, target: ArrayLike) -> float:
    """Coefficient of determination 1 − Σ (ŷ − y)² / Σ (y − ȳ)², up to 1; 0 is as good as the mean; higher is better.

    Raises:
        DataError: The arrays do not fit, or all targets are the same, so that there is nothing to explain.

    Example:
        >>> r2([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
        0.5
    """
    found, true = _varied(predicted, target, "R²")
    return float(1 - ((found - true) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def explained_variance(predicted: ArrayLike, target: ArrayLike) -> float:
    """Share of the target's variance that is explained, 1 − Var(y − ŷ) / Var(y), up to 1; higher is better.

    Unlike R² it forgives a constant offset.

    Raises:
        DataError: The arrays do not fit, or all targets are the same, so that there is nothing to explain.

    Example:
        >>> explained_variance([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
        1.0
    """
    found, true = _varied(predicted, target, "explained variance")
    return float(1 - (true - found).var() / true.var())


def _varied(predicted: ArrayLike, target: ArrayLike, metric: str) -> tuple[Array, Array]:
    found, true = pair_of_values(predicted, target)
    if true.var() == 0:
        raise DataError(f"{metric} needs targets that differ; all {len(true)} are {true[0]:g}")
    return found, true
