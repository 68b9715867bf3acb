"""How large a result cache should be: its look-ups take longer the more it holds, and fewer of them miss.

Source: Drolia, Guo, Tan, Gandhi and Narasimhan 2017, "Cachier: edge-caching for recognition applications", ICDCS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def zipf(items: int, exponent: float) -> Array:
    """Give the share of requests for each of some things, the most popular first: p_r ∝ r^−exponent.

    Example:
        >>> zipf(3, 1.0).round(4).tolist()
        [0.5455, 0.2727, 0.1818]
    """
    weights = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    shares: Array = weights / weights.sum()
    return shares


def lfu_miss_rate(popularity: Array, capacity: int) -> float:
    """Give the share of requests that a cache of the most popular things misses: 1 − Σ of the largest shares.

    Example:
        >>> round(lfu_miss_rate(zipf(3, 1.0), 2), 4)
        0.1818
    """
    return float(max(0.0, 1 - np.sort(popularity)[::-1][:capacity].sum()))


def lru_miss_rate(popularity: Array, capacity: int) -> float:
    """Give the share of requests that a cache of the latest things misses, when requests are independent.

    Σ p_i exp(−p_i T), where T solves Σ (1 − exp(−p_i T)) = capacity (Che, Tung and Wang 2002, "Hierarchical web caching
    systems").

    Example:
        >>> round(lru_miss_rate(np.full(10, 0.1), 5), 4)  # all as popular: half of them are there
        0.5
    """
    shares = popularity[popularity > 0]
    if capacity >= len(shares):
        return 0.0
    low, high = 0.0, 1.0
    while (1 - np.exp(-shares * high)).sum() < capacity:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - np.exp(-shares * middle)).sum() < capacity else (low, middle)
    return float((shares * np.exp(-shares * high)).sum())


def expected_latency(lookup: float, miss_rate: float, model: float) -> float:
    """Give E[L] = L_lookup + P(miss) · L_model, in the unit of the times.

    Example:
        >>> expected_latency(0.1, 0.25, 2.0)
        0.6
    """
    return lookup + miss_rate * model


def best_capacity(
    capacities: Sequence[int], lookups: Sequence[float], miss_rates: Sequence[float], model: float
) -> tuple[int, float]:
    """Choose the capacity k with the least E[L](k); the smaller one of those that are as good.

    Args:
        capacities: To choose from.
        lookups: L_lookup(k) of each.
        miss_rates: P(miss|k) of each.
        model: L_model.

    Returns:
        The capacity, and what a request takes with it.

    Example:
        >>> best_capacity((10, 100, 1000), (0.01, 0.05, 0.5), (0.6, 0.3, 0.2), 1.0)
        (100, 0.35)
    """
    latencies = [expected_latency(lookup, miss, model) for lookup, miss in zip(lookups, miss_rates, strict=True)]
    least = min(range(len(capacities)), key=lambda place: (latencies[place], capacities[place]))
    return capacities[least], latencies[least]
