"""Samples as arrays, and everything that can be wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptkit.errors import DataError

_CHANNELS = (1, 3)
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Samples:
    """Inputs and targets of one split.

    Args:
        x: uint8 images N × H × W × C; floats and whole numbers in the form the model takes.
        y: Class numbers, int64; or real numbers, float32: one a sample either way.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | NDArray[np.float32]

    @property
    def has_numbers(self) -> bool:
        """Whether the targets are real numbers, and not classes."""
        return self.y.dtype == np.float32

    @property
    def strata(self) -> NDArray[np.int64]:
        """What splits keep in proportion: the classes; real numbers are all alike."""
        return np.zeros(len(self.y), np.int64) if self.has_numbers else self.y.astype(np.int64, copy=False)


@dataclass(frozen=True)
class Source:
    """What a source of data gives, before it is split.

    Args:
        origin: Its name, for messages.
        train: What may be split further.
        test: The test split of the source, or None.
        validation: The validation split of the source, or None.
        labels: Names of the classes; none where targets are real numbers.
        sha256: Of the content.
    """

    origin: str
    train: Samples
    test: Samples | None
    validation: Samples | None
    labels: tuple[str, ...]
    sha256: str


def from_arrays(arrays: Mapping[str, Any], origin: str) -> Source:
    """Check arrays and make a source of them.

    Args:
        arrays: `x_train, y_train, x_test, y_test`, or `x, y`; optionally `labels`, the names of the classes. uint8
            images are N × H × W or N × H × W × C with 1 or 3 channels. Whole numbers in y are classes, floats are
            numbers to predict.
        origin: Where they come from, for messages.

    Raises:
        DataError: Arrays are missing, or something is wrong with them.

    Example:
        >>> source = from_arrays({"x": np.zeros((4, 8, 8), np.uint8), "y": [0, 1, 0, 1]}, "here")
        >>> source.train.x.shape, source.labels
        ((4, 8, 8, 1), ('0', '1'))
    """
    names = ("x_train", "y_train", "x_test", "y_test") if "x_train" in arrays or "y_train" in arrays else ("x", "y")
    missing = [name for name in names if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{origin}: {', '.join(missing)} missing; give x_train, y_train, x_test, y_test or x, y. Found {found}"
        )
    parts = [
        checked_samples(np.asarray(arrays[x]), np.asarray(arrays[y]), (x, y), origin)
        for x, y in zip(names[::2], names[1::2], strict=True)
    ]
    train, test = parts[0], parts[1] if len(parts) == 2 else None
    labels = _labels(arrays, train, origin)
    if test is not None:
        _check_alike(train, test, names, origin)
    if not train.has_numbers:
        check_classes(train, test, labels, origin)
    return Source(origin, train, test, None, labels, _sha256(parts))


def checked_samples(x: NDArray[Any], y: NDArray[Any], names: tuple[str, str], origin: str) -> Samples:
    """Check inputs against targets, and both for values that cannot be.

    Args:
        x: Inputs.
        y: Targets.
        names: What the user calls the two.
        origin: Where they come from, for messages.
    """
    where_x, where_y = f"{origin}: {names[0]}", f"{origin}: {names[1]}"
    targets = _checked_targets(y, where_y)
    if len(x) != len(targets):
        raise DataError(f"{where_x} has {len(x)} samples, {names[1]} has {len(targets)} labels")
    return Samples(_checked_inputs(x, where_x), targets)


def check_classes(train: Samples, test: Samples | None, labels: tuple[str, ...], origin: str) -> None:
    """Refuse labels without a name, classes without samples, and a test split of other classes."""
    highest = int(train.y.max())
    if highest >= len(labels):
        raise DataError(f"{origin}: there is the label {highest}, and only {len(labels)} classes are named")
    counts = np.bincount(train.y, minlength=len(labels))
    empty = [labels[number] for number in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(
            f"{origin}: no training sample has the class {', '.join(empty[:5])}; number classes from 0, without gaps"
        )
    if test is not None and int(test.y.max()) >= len(labels):
        raise DataError(f"{origin}: test has the label {int(test.y.max())}, train has 0 to {len(labels) - 1} only")


def _check_alike(train: Samples, test: Samples, names: tuple[str, ...], origin: str) -> None:
    if train.has_numbers != test.has_numbers:
        kinds = ["real numbers" if each.has_numbers else "whole numbers" for each in (train, test)]
        raise DataError(f"{origin}: {names[1]} holds {kinds[0]}, {names[3]} {kinds[1]}: give classes, or real numbers")
    if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype:
        raise DataError(f"{origin}: samples of train are {_form(train.x)}, those of test {_form(test.x)}")


def _checked_targets(y: NDArray[Any], where: str) -> NDArray[np.int64] | NDArray[np.float32]:
    if y.ndim != 1:
        raise DataError(
            f"{where} has shape {y.shape}: labels are one class number a sample, or one real number; use argmax(1) or "
            "ravel()"
        )
    if len(y) == 0:
        raise DataError(f"{where} is empty")
    if np.issubdtype(y.dtype, np.floating):
        return _checked_numbers(y, where)
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{where} holds {y.dtype}: labels are whole numbers from 0, or real numbers to predict")
    if y.min() < 0:
        at = int(np.argmax(y < 0))
        raise DataError(
            f"{where} has the label {y[at]} at sample {at}: labels are whole numbers from 0, "
            "numbers to predict are floats"
        )
    return y.astype(np.int64)


def _checked_numbers(y: NDArray[Any], where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = y.astype(np.float32)
    _check_finite(numbers, where)
    if numbers.min() == numbers.max():
        raise DataError(f"{where} holds {numbers[0]:g} for every sample: there is nothing to predict")
    return numbers


def _checked_inputs(x: NDArray[Any], where: str) -> NDArray[Any]:
    if x.dtype == np.uint8:
        return _images(x, where)
    if np.issubdtype(x.dtype, np.floating):
        values = x.astype(np.float32, copy=False)
        _check_finite(values, where)
        return values
    if np.issubdtype(x.dtype, np.integer):
        return x.astype(np.int64, copy=False)
    raise DataError(f"{where} holds {x.dtype}: give uint8 images, floats or whole numbers")


def _images(x: NDArray[Any], where: str) -> NDArray[Any]:
    images = x[..., None] if x.ndim == 3 else x
    if images.ndim != 4 or images.shape[3] not in _CHANNELS:
        raise DataError(
            f"{where} has shape {x.shape}: uint8 images are N × H × W, or N × H × W × C with 1 or 3 channels"
        )
    return images


def _check_finite(x: NDArray[np.float32], where: str) -> None:
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = x[start : start + _ROWS_AT_ONCE].reshape(min(_ROWS_AT_ONCE, len(x) - start), -1)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise DataError(f"{where} holds NaN or infinity, first at sample {start + int(np.argmax(bad))}")


def _labels(arrays: Mapping[str, Any], train: Samples, origin: str) -> tuple[str, ...]:
    if train.has_numbers:
        if "labels" in arrays:
            raise DataError(
                f"{origin}: labels name classes, and the targets are real numbers: give classes as integers"
            )
        return ()
    if "labels" in arrays:
        return tuple(str(name) for name in np.asarray(arrays["labels"]).tolist())
    return tuple(str(number) for number in range(int(train.y.max()) + 1))


def _form(x: NDArray[Any]) -> str:
    return f"{' × '.join(map(str, x.shape[1:]))} ({x.dtype})"


def _sha256(parts: list[Samples]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for array in (part.x, part.y):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
