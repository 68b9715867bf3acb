"""Which model each sample should go to, and which models are worth having."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adaptkit.conditional.thresholds import Array

Label = Callable[[list[int]], Array]
"""Gives the place in a list of models, N, of the one that each sample should go to."""


def fastest_right(right: Array, models: list[int]) -> Array:
    """Give the first model that is right; where none is, the first, as then only time can be won.

    Args:
        right: N × models.
        models: From the fastest to the slowest.

    Example:
        >>> fastest_right(np.array([[False, True], [True, True], [False, False]]), [0, 1]).tolist()
        [1, 0, 0]
    """
    places: Array = right[:, models].argmax(axis=1)
    return places


def best_metric(truth: Array, models: list[int]) -> Array:
    """Give the model that finds the true class likeliest, the faster one of equals.

    Args:
        truth: N × models, the probability that each gives to the true class.
        models: From the fastest to the slowest.

    Example:
        >>> best_metric(np.array([[0.2, 0.9], [0.7, 0.7]]), [0, 1]).tolist()
        [1, 0]
    """
    places: Array = truth[:, models].argmax(axis=1)
    return places


def greedy_set(label: Label, candidates: list[int], last: int, least_gain: float) -> list[int]:
    """Find the models that are worth having beside the last, which always stays.

    The model that becomes the one to use for most samples is added, until this is so for fewer than `least_gain` of
    them (Taylor et al. 2018, "Adaptive deep learning model selection on embedded systems"); one that those added after
    it have left with fewer goes again.

    Args:
        label: Says where samples should go, given models in order.
        candidates: From the fastest to the slowest.
        last: The model for the rest.
        least_gain: A share of the samples.

    Returns:
        The models in order, `last` at the end.
    """
    chosen: list[int] = []
    while len(chosen) < len(candidates):
        gains = {}
        for model in candidates:
            if model not in chosen:
                tried = sorted([*chosen, model], key=candidates.index)
                gains[model] = _shares(label, tried, last)[model]
        best = max(gains, key=lambda model: gains[model])
        if gains[best] < least_gain:
            break
        chosen = sorted([*chosen, best], key=candidates.index)
    while chosen and min((shares := _shares(label, chosen, last)).values()) < least_gain:
        chosen.remove(min(chosen, key=lambda model: shares[model]))
    return [*chosen, last]


def _shares(label: Label, models: list[int], last: int) -> dict[int, float]:
    """Give the share of the samples that each model but the last is the one to use for."""
    places = label([*models, last])
    return {model: float(np.mean(places == place)) for place, model in enumerate(models)}


def uncorrelated(features: Array, target: Array, limit: float) -> list[int]:
    """Choose features, those that go with the target first, and leave out what is nearly another one chosen.

    Args:
        features: N × F.
        target: N.
        limit: Largest absolute correlation of two features that are both chosen.

    Returns:
        Which features, in ascending order; none that is the same for all samples.

    Example:
        >>> x = np.array([[0.0, 0.0, 1.0, 5.0], [1.0, 2.0, 0.0, 5.0], [2.0, 4.1, 1.0, 5.0], [3.0, 6.0, 0.0, 5.0]])
        >>> uncorrelated(x, np.array([0, 0, 1, 1]), 0.9)
        [1, 2]
    """
    varying = np.flatnonzero(features.std(axis=0) > 1e-6)
    wanted = np.abs(_correlations(features[:, varying], target))
    between = np.abs(np.atleast_2d(np.corrcoef(features[:, varying], rowvar=False)))
    chosen: list[int] = []
    for place in np.argsort(-wanted, kind="stable").tolist():
        if all(between[place, other] <= limit for other in chosen):
            chosen.append(place)
    return sorted(int(varying[place]) for place in chosen)


def _correlations(features: Array, target: Array) -> Array:
    apart, wanted = features - features.mean(axis=0), target - target.mean()
    spread = np.sqrt((apart**2).sum(axis=0) * (wanted**2).sum())
    found: Array = (apart * wanted[:, None]).sum(axis=0) / np.maximum(spread, 1e-12)
    return found
