"""Fixed, disjoint splits from a seed, with the classes in the same proportions and mixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptkit.errors import DataError

Indices = NDArray[np.int64]


def hold_out(labels: Indices, size: float, seed: int, what: str, origin: str) -> tuple[Indices, Indices]:
    """Divide samples into those kept and those held out, class by class.

    Each class gives its share, rounded so that the total is right (largest remainders first); which samples of a
    class go is drawn from the seed.

    Args:
        labels: Class of each sample.
        size: Samples to hold out, or a share below 1.
        seed: Source of the choice.
        what: Name of the split, for the error and to draw each split on its own.
        origin: Where the data comes from, for the error.

    Returns:
        Positions kept and positions held out, both ascending.

    Raises:
        DataError: Nothing would be left, or the size is no whole number.

    Example:
        >>> kept, held = hold_out(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, 0, "test", "x")
        >>> len(kept), len(held)
        (6, 2)
    """
    count = _count(size, len(labels), what, origin)
    rng = np.random.default_rng([seed, *what.encode()])
    classes, sizes = np.unique(labels, return_counts=True)
    held = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, _quotas(sizes, count), strict=True)
    ]
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _count(size: float, total: int, what: str, origin: str) -> int:
    if size >= 1 and size != int(size):
        raise DataError(f"data.{what}: {size} is neither a share below 1 nor a whole number of samples")
    count = int(size) if size >= 1 else max(1, round(size * total))
    if count >= total:
        raise DataError(
            f"data.{what}: {count} samples are asked for, and only {total} are there to take them from ({origin})"
        )
    return count


def _quotas(sizes: Indices, count: int) -> Indices:
    exact = sizes * count / sizes.sum()
    quotas: Indices = np.floor(exact).astype(np.int64)
    largest = np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]
    quotas[largest] += 1
    return quotas


@dataclass(frozen=True)
class TrainSplits:
    """Positions of the three splits that are taken from the training samples; those held out in mixed order."""

    train: Indices
    validation: Indices
    calibration: Indices


def split_train(labels: Indices, validation: float, calibration: float, seed: int, origin: str) -> TrainSplits:
    """Take validation, then calibration, out of the training samples.

    Args:
        labels: Class of each training sample.
        validation: Samples, or a share below 1 of all training samples; 0 takes none.
        calibration: The same.
        seed: Source of the choice.
        origin: Where the data comes from, for errors.
    """
    everything = np.arange(len(labels))
    rest, held = (
        (everything, everything[:0]) if validation == 0 else hold_out(labels, validation, seed, "validation", origin)
    )
    wanted = calibration if calibration >= 1 else max(1, round(calibration * len(labels)))
    kept, chosen = hold_out(labels[rest], wanted, seed, "calibration", origin)
    return TrainSplits(rest[kept], mixed(held, seed), mixed(rest[chosen], seed))


def mixed(positions: Indices, seed: int) -> Indices:
    """Put positions into an order that a seed draws.

    Sources are often sorted by class. Whoever reads a part of a split (moments of activations, statistics of
    normalizations) would otherwise see a class or two.

    Example:
        >>> mixed(np.arange(5), seed=0)
        array([3, 0, 1, 4, 2])
    """
    return np.random.default_rng([seed, *b"order"]).permutation(positions)
