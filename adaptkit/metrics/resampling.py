"""Intervals: exact ones of shares, bootstrap ones of anything a sample gives, and those of means of few parts."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.bounds import share_bound
from adaptkit.metrics.estimate import Estimate


def exact_share(seen: int, samples: int, confidence: float = 0.95) -> Estimate:
    """Estimate a probability, with the exact two-sided interval (Clopper and Pearson 1934).

    Args:
        seen: Samples that show it.
        samples: All of them.
        confidence: How often the interval holds the probability, at least.

    Raises:
        DataError: There is no sample.

    Example:
        >>> exact_share(0, 10)
        Estimate(value=0.0, low=0.0, high=0.3084...)
    """
    check_confidence(confidence)
    if samples < 1:
        raise DataError("a share of no samples is no number; give at least one")
    one_sided = (1 + confidence) / 2
    low = 1 - share_bound(samples - seen, samples, one_sided)
    return Estimate(seen / samples, low, share_bound(seen, samples, one_sided))


def bootstrap(
    statistic: Callable[[Tensor], float], samples: int, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Estimate a figure of a sample, with the percentile interval of the bootstrap (Efron 1979).

    Args:
        statistic: Maps the numbers of the chosen samples (int64, with repetitions) to the figure.
        samples: How many there are.
        draws: Samples drawn anew.
        confidence: Share of the draws inside the interval.
        seed: Source of the draws.

    Raises:
        DataError: There are less than two samples.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> bootstrap(lambda chosen: float(x[chosen].mean()), 4)
        Estimate(value=1.5, low=0.5, high=2.5)
    """
    check_confidence(confidence)
    if samples < 2:
        raise DataError(f"a bootstrap needs at least 2 samples; got {samples}")
    rng = np.random.default_rng(seed)
    drawn = [statistic(torch.from_numpy(rng.integers(0, samples, samples))) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(statistic(torch.arange(samples)), float(low), float(high))


def bootstrap_mean(values: Tensor, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Estimate a mean with the percentile interval of the bootstrap.

    Args:
        values: One number a sample.
        draws: Samples drawn anew.
        confidence: Share of the draws inside the interval.
        seed: Source of the draws.

    Raises:
        DataError: There are less than two samples.
    """
    return bootstrap(
        lambda chosen: float(values[chosen].mean()), len(values), draws=draws, confidence=confidence, seed=seed
    )


def around(value: float, deviation: float, freedom: int, confidence: float = 0.95) -> Estimate:
    """Put Student's interval around a figure whose standard deviation was measured on few parts.

    Args:
        value: The figure.
        deviation: Its standard deviation.
        freedom: Degrees of freedom of that: parts less one.
        confidence: How often the interval holds the expectation of the figure, were it normal.

    Example:
        >>> around(1.0, 0.1, freedom=9)
        Estimate(value=1.0, low=0.7738..., high=1.2261...)
    """
    check_confidence(confidence)
    width = deviation * _student_quantile((1 + confidence) / 2, freedom)
    return Estimate(value, value - width, value + width)


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence.

    Raises:
        AdaptkitError: It is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise AdaptkitError(f"confidence is between 0 and 1, such as 0.95; got {confidence}")


def _student_quantile(probability: float, freedom: int) -> float:
    """Expand the quantile around that of the normal distribution (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, 1)))
