"""How much accuracy a change can cost, given how it did on some samples."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np


def drop_bound(lost: int, gained: int, samples: int, confidence: float = 0.95) -> float:
    """Bound the drop in accuracy from above, with a one-sided score interval for paired shares.

    The drop θ is the probability that only the original is right minus that only the changed model is. The bound is the
    θ at which z(θ) = (b − c − nθ) / √(n (2 q̃(θ) + θ (1 − θ))) falls to −z_confidence, where q̃ is the likeliest
    probability of a gain given θ (Tango 1998, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17). Unlike the normal approximation it is above
    zero where the two never differ.

    Args:
        lost: b, samples that only the original gets right.
        gained: c, samples that only the changed model gets right.
        samples: n, all of them.
        confidence: How often the bound holds, over draws of the samples.

    Returns:
        The bound, from −1 to 1; 1 where there are no samples.

    Example:
        >>> [round(drop_bound(*seen), 4) for seen in ((0, 0, 1000), (20, 10, 1000), (20, 10, 10000))]
        [0.0027, 0.0197, 0.002]
    """
    if samples == 0:
        return 1.0
    z = NormalDist().inv_cdf(confidence)
    low, high = (lost - gained) / samples, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(middle, lost, gained, samples) > -z else (low, middle)
    return high


def _score(drop: float, lost: int, gained: int, samples: int) -> float:
    """Return z(θ), the distance of the observed drop from θ in standard errors."""
    b = (2 * samples - lost + gained) * drop - lost - gained
    root = max(0.0, b * b + 8 * samples * gained * drop * (1 - drop)) ** 0.5
    likeliest_gain = (root - b) / (4 * samples)
    variance = samples * (2 * likeliest_gain + drop * (1 - drop))
    difference = lost - gained - samples * drop
    if variance <= 0:
        return 0.0 if difference == 0 else float("-inf") if difference < 0 else float("inf")
    return float(difference / variance**0.5)


def share_bound(seen: int, samples: int, confidence: float = 0.95) -> float:
    """Bound a probability from above, given how often something was seen (Clopper and Pearson 1934, one-sided).

    The bound is the p at which at most `seen` of n independent samples show it with probability 1 − confidence. A
    lower bound of a share is 1 minus the upper bound of the opposite.

    Args:
        seen: Samples that show it.
        samples: n, all of them.
        confidence: How often the bound holds, over draws of the samples.

    Returns:
        The bound, from 0 to 1; 1 where there are no samples.

    Example:
        >>> round(share_bound(0, 299), 4), round(share_bound(5, 1200), 4), share_bound(0, 0)
        (0.01, 0.0087, 1.0)
    """
    if seen >= samples:
        return 1.0
    low, high = seen / samples, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(seen, samples, middle) > 1 - confidence else (low, middle)
    return high


def _at_most(seen: int, samples: int, p: float) -> float:
    """Return the probability that at most `seen` of `samples` show something that each shows with probability p."""
    if p >= 1:
        return 0.0
    shares = np.arange(seen + 1)
    steps = np.log(samples - shares[:-1]) - np.log(shares[1:]) + np.log(p / (1 - p)) if seen else np.zeros(0)
    logs = samples * np.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(logs).sum())
