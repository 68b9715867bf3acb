"""Whether two models that answered the same samples differ in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics.estimate import CONFIDENCE, Estimate
from adaptkit.metrics.resampling import percentile, resampled_counts
from adaptkit.report.schema import PairedAccuracy

_DRAWS = 10_000
"""More than elsewhere: they cost little, and are held against 0."""


class Difference(NamedTuple):
    """How two models differ on the same samples.

    Args:
        lost: b, samples that only the first gets right.
        gained: c, samples that only the second gets right.
        samples: n, all of them.
    """

    lost: int
    gained: int
    samples: int

    @property
    def accuracy(self) -> float:
        """That of the second minus that of the first: (c - b) / n."""
        return (self.gained - self.lost) / self.samples


def difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Count where two models differ.

    Args:
        first: Of every sample, whether the first model is right.
        second: The same of the second, in the same order.

    Raises:
        DataError: They did not answer the same samples, or none.

    Example:
        >>> difference([True, True, False], [True, False, False])
        Difference(lost=1, gained=0, samples=3)
    """
    if not first or len(first) != len(second):
        raise DataError(f"paired accuracy needs the same samples; one model saw {len(first)}, the other {len(second)}")
    pairs = list(zip(first, second, strict=True))
    return Difference(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs))


def mcnemar_exact(lost: int, gained: int) -> float:
    """Give the two-sided p value of McNemar's exact test (McNemar 1947, Psychometrika 12).

    Where both models are right equally often, each sample on which they differ is as likely lost as gained:
    p = min(1, 2 · Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c)).

    Args:
        lost: b, samples that only the first gets right.
        gained: c, samples that only the second gets right.

    Returns:
        From 0 to 1; 1 where they never differ.

    Example:
        >>> mcnemar_exact(1, 5), mcnemar_exact(0, 0)
        (0.21875, 1.0)
    """
    n = lost + gained
    ways, term = 0, 1
    for i in range(min(lost, gained) + 1):
        ways += term
        term = term * (n - i) // (i + 1)
    # Whole numbers of any size, divided once: nothing is rounded on the way.
    return min(1.0, float(2 * ways / 2**n))


def accuracy_difference(found: Difference, confidence: float = CONFIDENCE) -> Estimate:
    """Bound the difference in accuracy by a paired bootstrap (Efron and Tibshirani 1993, chapter 13).

    Each draw takes n samples with replacement, both answers of a sample together, so that only the counts of lost and
    gained ones vary: multinomial with b/n, c/n and the rest.

    Args:
        found: What was seen.
        confidence: Share of the draws inside.

    Returns:
        From −1 to 1; no interval where the two never differ.

    Example:
        >>> shown = accuracy_difference(Difference(lost=20, gained=10, samples=1000))
        >>> round(shown.value, 3), round(shown.low, 3), round(shown.high, 3)
        (-0.01, -0.021, 0.001)
    """
    table = np.array([found.lost, found.gained, found.samples - found.lost - found.gained])
    draws = resampled_counts(lambda drawn: float(drawn[1] - drawn[0]) / found.samples, table, _DRAWS)
    return percentile(draws, found.accuracy, confidence)


def compare_hits(first: Sequence[bool], second: Sequence[bool]) -> PairedAccuracy:
    """Say how two models differ in accuracy, how far that can be trusted, and whether it is shown at all.

    Args:
        first: Of every sample, whether the first model is right.
        second: The same of the second, in the same order.

    Raises:
        DataError: They did not answer the same samples, or none.

    Example:
        >>> found = compare_hits([True] * 9 + [False], [True] * 8 + [False] * 2)
        >>> found.difference, found.lost, found.gained, found.p_value
        (-0.1, 1, 0, 1.0)
    """
    found = difference(first, second)
    low, high = accuracy_difference(found).ends
    return PairedAccuracy(
        difference=found.accuracy,
        low=low,
        high=high,
        lost=found.lost,
        gained=found.gained,
        p_value=mcnemar_exact(found.lost, found.gained),
    )
