"""How sure a measured metric is: two-sided 95 % confidence intervals over draws of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np

from adaptkit.errors import DataError
from adaptkit.metrics.bounds import share_bound
from adaptkit.metrics.forms import Array

T = TypeVar("T")

CONFIDENCE = 0.95
RESAMPLES = 1000


class Interval(NamedTuple):
    """Where the metric of all possible samples is.

    Args:
        low: None where nothing is known.
        high: None where nothing is known.
        method: How it was found, or why it was not.
    """

    low: float | None
    high: float | None
    method: str


ALIKE = Interval(None, None, "none: all resamples are alike")
"""Where every sample is right, say: these samples do not tell how rare an error is."""
_FEW = Interval(None, None, "none: too few samples")


def clopper_pearson(right: Array, confidence: float = CONFIDENCE) -> Interval:
    """Bound a share exactly (Clopper and Pearson 1934): it holds at least as often as it says, for any n.

    Args:
        right: N truth values.
        confidence: How often the interval holds.

    Example:
        >>> low, high, _ = clopper_pearson(np.array([True] * 9 + [False]))
        >>> round(low, 4), round(high, 4)
        (0.555, 0.9975)
    """
    seen, samples = int(np.sum(right)), len(right)
    side = (1 + confidence) / 2
    low, high = 1 - share_bound(samples - seen, samples, side), share_bound(seen, samples, side)
    return Interval(low, high, "exact (Clopper-Pearson)")


def percentile(draws: Sequence[float], value: float, confidence: float = CONFIDENCE) -> Interval:
    """Take the outer quantiles of a statistic over bootstrap resamples (Efron 1979), widened to hold its value.

    Not BCa: its jackknife computes the statistic once a sample, which no large test split can afford, and for
    statistics without bias the two differ by terms of order 1/n.

    Args:
        draws: The statistic on every resample on which it is defined.
        value: The statistic on the samples themselves.
        confidence: How often the interval holds.

    Returns:
        No interval where all resamples are alike, or where there are fewer than a hundred.

    Example:
        >>> percentile(list(range(1001)), 500, confidence=0.5)
        Interval(low=250.0, high=750.0, method='bootstrap percentile, 1001 resamples')
    """
    if _says_nothing(draws):
        return _FEW if len(draws) < 100 else ALIKE
    low, high = _quantiles(draws, confidence)
    return Interval(min(low, value), max(high, value), f"bootstrap percentile, {len(draws)} resamples")


def absolute_sum(draws: Sequence[Array], parts: Array, confidence: float = CONFIDENCE) -> Interval:
    """Bound Σ |μ_b| from 0 to 1, such as the calibration error, given bootstrap draws of the estimates of all μ_b.

    An estimate of a part that is 0 has an absolute value above 0, so that the sum is too high, and resampling makes it
    higher still: plain quantiles rarely hold the truth of a model that is calibrated well. So an error h_b adds
    sign(μ_b) h_b where the sign is known, the estimate being two deviations from 0, and |h_b| where the part may be 0
    (Fang and Santos 2019, "Inference on directionally differentiable functions", Review of Economic Studies 86, section
    3). The upper end takes all signs as known, which is safe: it corrects for no bias.

    Args:
        draws: The parts of every resample.
        parts: Those of the samples themselves.
        confidence: How often the interval holds.

    Returns:
        No interval where all resamples are alike.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> low, high, _ = absolute_sum(list(rng.normal([0.3, 0.0], 0.01, (1000, 2))), np.array([0.3, 0.005]))
        >>> round(low, 2), round(high, 2)
        (0.27, 0.34)
    """
    errors, value = np.array(draws) - parts, float(np.abs(parts).sum())
    if not errors.any():
        return ALIKE
    known, signs, side = np.abs(parts) > 2 * errors.std(axis=0), np.sign(parts), (1 - confidence) / 2
    bent = errors[:, known] @ signs[known] + np.abs(errors[:, ~known]).sum(axis=1)
    low, high = value - np.quantile(bent, 1 - side), value - np.quantile(errors @ signs, side)
    method = f"bootstrap of a sum of absolute values, {len(draws)} resamples"
    return Interval(float(np.clip(low, 0.0, value)), float(np.clip(high, value, 1.0)), method)


def at_least(value: float) -> Interval:
    """Bound the largest of all possible samples: it is at least that of these, and no sample says how much more."""
    return Interval(value, None, "at least: no sample bounds a maximum from above")


def delong(scores: Array, target: Array, confidence: float = CONFIDENCE) -> Interval:
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
    classes, sizes = np.unique(target, return_counts=True)
    if sizes.min() < 2:
        return _FEW
    area, parts = 0.0, np.zeros(len(target))
    for each in classes:
        found, part = _placements(scores[:, each], target == each)
        area += found / len(classes)
        parts += part / len(classes)
    variance = sum(n * parts[target == each].var(ddof=1) for each, n in zip(classes, sizes, strict=True))
    if variance == 0 or not 0 < area < 1:
        return ALIKE
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, width = np.log(area / (1 - area)), z * variance**0.5 / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - width, middle + width))
    return Interval(low, high, "DeLong, on the logit scale")


def resampled(
    statistic: Callable[..., T], arrays: Sequence[Array], resamples: int = RESAMPLES, seed: int = 0
) -> list[T]:
    """Draw as many samples as there are, with replacement, again and again; give the statistic of each draw.

    Args:
        statistic: Of the arrays.
        arrays: Of N rows each, drawn together.
        resamples: How often.
        seed: The same seed, the same draws.

    Returns:
        One a draw, but for those on which the statistic is not defined.
    """
    rng = np.random.default_rng(seed)
    samples = len(arrays[0])
    chosen = (rng.integers(samples, size=samples) for _ in range(resamples))
    return list(_defined(statistic, ([array[rows] for array in arrays] for rows in chosen)))


def resampled_counts(
    statistic: Callable[[Array], float], counts: Array, resamples: int = RESAMPLES, seed: int = 0
) -> list[float]:
    """Do what `resampled` does for samples counted in a table; as fast for a million samples as for ten."""
    rng = np.random.default_rng(seed)
    filled, samples = np.nonzero(counts), int(counts.sum())
    shares = counts[filled] / samples
    return list(
        _defined(statistic, ([_table(counts, filled, draw)] for draw in rng.multinomial(samples, shares, resamples)))
    )


def _table(counts: Array, filled: tuple[Array, ...], draw: Array) -> Array:
    table = np.zeros_like(counts)
    table[filled] = draw
    return table


def _defined(statistic: Callable[..., T], draws: Iterator[list[Array]]) -> Iterator[T]:
    for arrays in draws:
        try:
            yield statistic(*arrays)
        except DataError:
            continue


def _says_nothing(draws: Sequence[float]) -> bool:
    return len(draws) < 100 or min(draws) == max(draws)


def _quantiles(draws: Sequence[float], confidence: float) -> tuple[float, float]:
    # Of the draws themselves: between a number and infinity there is nothing to interpolate.
    side = (1 - confidence) / 2
    return float(np.quantile(draws, side, method="lower")), float(np.quantile(draws, 1 - side, method="higher"))


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
