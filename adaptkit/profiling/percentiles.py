"""From the times of calls to what a report holds of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from adaptkit.report.schema import LATENCY_LEVELS, Percentiles


def percentiles(milliseconds: ArrayLike, *, mean: bool) -> Percentiles:
    """Summarize the times of calls.

    Args:
        milliseconds: Of each call.
        mean: Give the mean too, where calls differ by more than chance.

    Example:
        >>> found = percentiles([2, 4, 3], mean=True)
        >>> found.p50, found.mean, found.calls, found.quantiles[10]
        (3.0, 3.0, 3, 3.0)
    """
    times = np.asarray(milliseconds, np.float64)
    p50, p90, p99 = np.percentile(times, [50, 90, 99]).tolist()
    return Percentiles(
        p50=p50,
        p90=p90,
        p99=p99,
        mean=float(times.mean()) if mean else None,
        calls=len(times),
        quantiles=np.percentile(times, LATENCY_LEVELS).tolist(),
    )
