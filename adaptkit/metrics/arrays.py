"""What a metric is given, checked once: arrays of numpy or torch become tensors, or one error says what is wrong."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adaptkit.errors import DataError

Array: TypeAlias = "Tensor | npt.NDArray[Any]"


def finite(name: str, values: Array, least: int = 1) -> Tensor:
    """Return the values as float64 on the CPU.

    Args:
        name: What the error calls them.
        values: One sample a row.
        least: Samples below which nothing can be said.

    Raises:
        DataError: There are too few samples, or some values are NaN or infinite.

    Example:
        >>> finite("scores", np.array([1, 2]))
        tensor([1., 2.], dtype=torch.float64)
    """
    tensor = torch.as_tensor(values).detach().to("cpu", torch.float64)
    count = len(tensor) if tensor.ndim else 0
    if count < least:
        raise DataError(f"{name}: {count} samples are too few, give at least {least}")
    bad = int((~tensor.isfinite()).reshape(count, -1).any(1).sum())
    if bad:
        raise DataError(f"{name}: {bad} of {count} samples hold NaN or infinities; leave them out or mend the model")
    return tensor


def rows(name: str, values: Array, least: int = 1) -> Tensor:
    """Return the values as a float64 matrix, one flattened sample a row.

    Raises:
        DataError: As `finite`.

    Example:
        >>> rows("images", torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 12])
    """
    tensor = finite(name, values, least)
    return tensor.reshape(len(tensor), -1)


def scores(name: str, values: Array, least: int = 1) -> Tensor:
    """Return the values as a float64 matrix of samples × classes.

    Raises:
        DataError: As `finite`, or there are not two classes.
    """
    tensor = finite(name, values, least)
    if tensor.ndim != 2 or tensor.shape[1] < 2:
        raise DataError(f"{name}: give samples × classes with at least 2 classes; got shape {tuple(tensor.shape)}")
    return tensor


def labels(name: str, values: Array, samples: int, classes: int | None = None) -> Tensor:
    """Return class numbers as int64.

    Args:
        name: What the error calls them.
        values: One class number a sample.
        samples: How many there must be.
        classes: The numbers must be below this, where given.

    Raises:
        DataError: They are no whole numbers, there is another number of them, or some are out of range.

    Example:
        >>> labels("y", np.array([0, 2]), 2, classes=3)
        tensor([0, 2])
    """
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise DataError(
            f"{name}: give one class number a sample; got {tensor.dtype} of shape {tuple(tensor.shape)}".replace(
                "torch.", ""
            )
        )
    same_length(name, len(tensor), samples)
    if samples and (int(tensor.min()) < 0 or (classes is not None and int(tensor.max()) >= classes)):
        top = "" if classes is None else f" to {classes - 1}"
        raise DataError(f"{name}: classes go from 0{top}; got {int(tensor.min())} to {int(tensor.max())}")
    return tensor.long()


def same_length(name: str, count: int, samples: int) -> None:
    """Refuse arrays that do not belong to the same samples.

    Raises:
        DataError: They have not as many samples.
    """
    if count != samples:
        raise DataError(f"{name}: has {count} samples, what belongs to them has {samples}; give one each")


def generator(seed: int) -> np.random.Generator:
    """Make the one source of chance of a metric."""
    return np.random.default_rng(seed)
