"""What a metric is given, checked once: arrays of numpy or torch become numpy's, or one error says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptkit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = "ArrayLike | Tensor"
"""What users have: arrays, lists, or tensors on any device."""


def finite(name: str, values: Values, least: int = 1) -> Array:
    """Return the values as float64.

    Args:
        name: What the error calls them.
        values: One sample a row.
        least: Samples below which nothing can be said.

    Raises:
        DataError: There are too few samples, or some values are NaN or infinite.

    Example:
        >>> finite("scores", [1, 2])
        array([1., 2.])
    """
    found = as_array(values).astype(np.float64)
    count = len(found) if found.ndim else 0
    _enough(name, count, least)
    bad = ~np.isfinite(found).all(axis=tuple(range(1, found.ndim)))
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {count} samples hold NaN or infinity, first at sample {bad.argmax()}; leave "
            "them out or mend the model"
        )
    return found


def rows(name: str, values: Values, least: int = 1) -> Array:
    """Return the values as a float64 matrix, one flattened sample a row.

    Raises:
        DataError: As `finite`.

    Example:
        >>> rows("images", np.zeros((5, 3, 2, 2))).shape
        (5, 12)
    """
    found = finite(name, values, least)
    return found.reshape(len(found), -1)


def numbers(name: str, values: Values) -> Array:
    """Return one float64 a sample, N × 1 as N.

    Raises:
        DataError: As `finite`, or there are several a sample.

    Example:
        >>> numbers("outputs", [[1], [2]])
        array([1., 2.])
    """
    found = finite(name, values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise DataError(f"{name}: give one number a sample, N or N × 1; got shape {found.shape}")
    return found


def scores(name: str, values: Values, least: int = 1) -> Array:
    """Return the values as a float64 matrix of samples × classes.

    Raises:
        DataError: As `finite`, or there are not two classes.
    """
    found = finite(name, values, least)
    if found.ndim != 2 or found.shape[1] < 2:
        raise DataError(f"{name}: give samples × classes with at least 2 classes; got shape {found.shape}")
    return found


def labels(name: str, values: Values, samples: int | None = None, classes: int | None = None) -> Array:
    """Return class numbers as int64.

    Args:
        name: What the error calls them.
        values: One class number a sample.
        samples: How many there must be; any number from 1 where None.
        classes: The numbers must be below this, where given.

    Raises:
        DataError: They are no whole numbers, there is another number of them, or some are out of range.

    Example:
        >>> labels("y", [0, 2], 2, classes=3)
        array([0, 2])
    """
    found = as_array(values)
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        raise DataError(f"{name}: give one class number a sample; got {found.dtype} of shape {found.shape}")
    _enough(name, len(found), 1)
    if samples is not None:
        same_length(name, len(found), samples)
    wrong = (found < 0) | (found >= (np.inf if classes is None else classes))
    if wrong.any():
        at, top = int(wrong.argmax()), "" if classes is None else f" to {classes - 1}"
        raise DataError(f"{name}: classes go from 0{top}; sample {at} has {found[at]}")
    return found.astype(np.int64)


def same_length(name: str, count: int, samples: int) -> None:
    """Refuse arrays that do not belong to the same samples.

    Raises:
        DataError: They have not as many samples.
    """
    if count != samples:
        raise DataError(f"{name}: has {count} samples, what belongs to them has {samples}; give one each")


def as_array(values: Values) -> Array:
    """Take an array as it is, and bring a tensor over, without its gradient.

    Example:
        >>> import torch
        >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
        array([1., 1.], dtype=float32)
    """
    # Asked by what it can do: importing torch would slow down whoever only reads the table of metrics.
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    found: Array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return found


def _enough(name: str, count: int, least: int) -> None:
    if count < least:
        raise DataError(f"{name}: {count} samples are too few, give at least {least}")
