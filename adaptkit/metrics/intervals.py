"""How sure a measured metric is: two-sided confidence intervals over draws of the samples, but for the bootstrap's."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import NormalDist

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.bounds import share_bound
from adaptkit.metrics.estimate import ALIKE, CONFIDENCE, FEW, Estimate, check_confidence, unbounded


def exact_share(seen: int, samples: int, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a probability with its exact interval (Clopper and Pearson 1934): it holds at least as often as it says.

    Args:
        seen: Samples that show it.
        samples: All of them.
        confidence: How often the interval holds the probability, at least.

    Raises:
        DataError: There is no sample.

    Example:
        >>> exact_share(0, 10)
        Estimate(value=0.0, low=0.0, high=0.3084..., method='exact (Clopper-Pearson)')
    """
    check_confidence(confidence)
    if samples < 1:
        raise DataError("a share of no samples is no number; give at least one")
    side = (1 + confidence) / 2
    low, high = 1 - share_bound(samples - seen, samples, side), share_bound(seen, samples, side)
    return Estimate(seen / samples, low, high, "exact (Clopper-Pearson)")


def around(value: float, deviation: float, freedom: int, confidence: float = CONFIDENCE) -> Estimate:
    """Put Student's interval around a figure whose standard deviation was measured on few parts.

    Args:
        value: The figure.
        deviation: Its standard deviation.
        freedom: Degrees of freedom of that: parts less one.
        confidence: How often the interval holds the expectation of the figure, were it normal.

    Example:
        >>> around(1.0, 0.1, freedom=9)
        Estimate(value=1.0, low=0.7738..., high=1.2261..., method="Student's, 9 degrees of freedom")
    """
    check_confidence(confidence)
    width = deviation * _student_quantile((1 + confidence) / 2, freedom)
    return Estimate(value, value - width, value + width, f"Student's, {freedom} degrees of freedom")


def absolute_sum(draws: Sequence[Array], parts: Array, confidence: float = CONFIDENCE) -> Estimate:
    """Bound Σ |μ_b| from 0 to 1, such as the calibration error, given bootstrap draws of the estimates of all μ_b.

    An estimate of a part that is 0 has an absolute value above 0, so that the sum is too high, and resampling makes it
    higher still: plain quantiles rarely hold the truth of a model that is calibrated well. So an error h_b adds
    sign(μ_b) h_b where the sign is known, the estimate being two deviations from 0, and |h_b| where the part may be 0
    (Fang and Santos 2019, "Inference on directionally differentiable functions", Review of Economic Studies 86). The
    upper end takes all signs as known, which is safe: it corrects for no bias.

    Args:
        draws: The parts of every resample.
        parts: Those of the samples themselves.
        confidence: How often the interval holds.

    Returns:
        No interval where all resamples are alike.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = absolute_sum(list(rng.normal([0.3, 0.0], 0.01, (1000, 2))), np.array([0.3, 0.005]))
        >>> round(found.value, 3), round(found.low, 2), round(found.high, 2)
        (0.305, 0.27, 0.34)
    """
    errors, value = np.array(draws) - parts, float(np.abs(parts).sum())
    if not errors.any():
        return unbounded(value, ALIKE)
    known, signs, side = np.abs(parts) > 2 * errors.std(axis=0), np.sign(parts), (1 - confidence) / 2
    bent = errors[:, known] @ signs[known] + np.abs(errors[:, ~known]).sum(axis=1)
    low, high = value - np.quantile(bent, 1 - side), value - np.quantile(errors @ signs, side)
    method = f"bootstrap of a sum of absolute values, {len(draws)} resamples"
    return Estimate(value, float(np.clip(low, 0.0, value)), float(np.clip(high, value, 1.0)), method)


def at_least(value: float) -> Estimate:
    """Bound the largest of all possible samples: it is at least that of these, and no sample says how much more."""
    return Estimate(value, value, inf, "at least: no sample bounds a maximum from above")


def delong(scores: Array, target: Array, confidence: float = CONFIDENCE) -> Estimate:
    """Bound the area under the ROC curve, one class against the rest and averaged over the classes.

    The variance is that of DeLong et al. 1988 ("Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 44), here of an average of areas that share their samples. The interval is
    symmetric in log(A / (1 − A)), so that it stays within 0 and 1.

    Args:
        scores: N × C.
        target: N class numbers, of two classes or more.
        confidence: How often the interval holds.

    Returns:
        No interval where the classes are told apart without an error, or where one has a single sample.
    """
    area, parts = placements(scores, target)
    if min(np.unique(target, return_counts=True)[1]) < 2:
        return unbounded(area, FEW)
    deviation = area_deviation(parts, target)
    if deviation == 0 or not 0 < area < 1:
        return unbounded(area, ALIKE)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, width = np.log(area / (1 - area)), z * deviation / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - width, middle + width))
    return Estimate(area, low, high, "DeLong, on the logit scale")


def placements(scores: Array, target: Array) -> tuple[float, Array]:
    """Give the area under the ROC curve, averaged over classes, and what every sample adds to it.

    Args:
        scores: N × C.
        target: N class numbers, of two classes or more.

    Example:
        >>> area, parts = placements(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 1, 1]))
        >>> area
        1.0
    """
    area, parts, classes = 0.0, np.zeros(len(target)), np.unique(target)
    for each in classes:
        found, part = _placements(scores[:, each], target == each)
        area += found / len(classes)
        parts += part / len(classes)
    return area, parts


def area_deviation(parts: Array, target: Array) -> float:
    """Give the standard deviation of an area, or of a difference of two, from what every sample adds to it."""
    classes, sizes = np.unique(target, return_counts=True)
    variance = sum(n * parts[target == each].var(ddof=1) for each, n in zip(classes, sizes, strict=True))
    return float(variance**0.5)


def _student_quantile(probability: float, freedom: int) -> float:
    """Expand the quantile around that of the normal distribution (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, 1)))


def _placements(scores: Array, own: Array) -> tuple[float, Array]:
    """Give the area, and for each sample the share of the other side that it is ranked right against, over its own."""
    ranks, many = _midranks(scores), int(own.sum())
    others = len(own) - many
    parts = np.empty(len(own))
    parts[own] = (ranks[own] - _midranks(scores[own])) / others / many
    parts[~own] = 1 / others - (ranks[~own] - _midranks(scores[~own])) / many / others
    return float(parts[own].sum()), parts


def _midranks(scores: Array) -> Array:
    """Rank from 1, ties in the middle of their places."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[place]
    return ranks
