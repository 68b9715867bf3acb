"""How sparse a model is to be while it trains."""

from __future__ import annotations


def cubic_sparsity(step: int, begin: int, end: int, initial: float, final: float) -> float:
    """Return the sparsity after a step: s = s_f + (s_i − s_f) (1 − (t − t₀) / (t₁ − t₀))³, held before t₀ and after t₁.

    Much is taken early, while there is redundancy, and little late (Zhu and Gupta 2017, "To prune, or not to prune",
    equation 1).

    Args:
        step: t, steps done.
        begin: t₀.
        end: t₁, at least t₀.
        initial: s_i, up to and at t₀.
        final: s_f, from t₁ on.

    Example:
        >>> [round(cubic_sparsity(t, 10, 20, 0.0, 0.8), 3) for t in (0, 10, 15, 20, 99)]
        [0.0, 0.0, 0.7, 0.8, 0.8]
    """
    if step >= end:
        return final
    left = 1 - max(step - begin, 0) / (end - begin)
    return final + (initial - final) * left**3


def is_update(step: int, begin: int, end: int, updates: int) -> bool:
    """Say whether the sparsity is renewed after a step: `updates` times, evenly between begin and end, and at the end.

    Example:
        >>> [t for t in range(30) if is_update(t, 10, 20, 5)]
        [12, 14, 16, 18, 20]
        >>> [t for t in range(30) if is_update(t, 10, 13, 5)]
        [11, 12, 13]
    """
    if not begin < step <= end:
        return step == end
    return (step - begin) * updates // (end - begin) > (step - 1 - begin) * updates // (end - begin)
