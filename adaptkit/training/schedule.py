"""Learning rate schedules: the factor on the highest rate, step by step."""

import math
from collections.abc import Callable

_WARMUP = 0.3
_START = 1 / 25
_END = 1e-4 / 25


def rate_factor(schedule: str, step: int, total: int) -> float:
    """Learning rate of a step as a share of the highest one.

    - `one_cycle` (Smith and Topin 2018, "Super-Convergence"): from 1/25 up to 1 over the first 30 % of the steps, then
      down to 1/250,000, both along half a cosine. The momentum stays as it is.
    - `cosine` (Loshchilov and Hutter 2017, "SGDR", without restarts): (1 + cos(π step / total)) / 2.
    - `constant`: 1.

    Args:
        schedule: `one_cycle`, `cosine` or `constant`.
        step: From 0 to total - 1.
        total: Steps in all.

    Example:
        >>> [round(rate_factor("cosine", step, 4), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    return _SCHEDULES[schedule](step, total)


def _one_cycle(step: int, total: int) -> float:
    peak, last = _WARMUP * total - 1, max(total - 1, 1)
    if step <= peak:
        return _between(_START, 1.0, step / peak)
    return _between(1.0, _END, (step - peak) / (last - peak))


def _cosine(step: int, total: int) -> float:
    return _between(1.0, 0.0, step / total)


def _constant(step: int, total: int) -> float:
    del step, total
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


_SCHEDULES: dict[str, Callable[[int, int], float]] = {"one_cycle": _one_cycle, "cosine": _cosine, "constant": _constant}
