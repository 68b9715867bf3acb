"""How sure a classifier is, from its answer."""

from __future__ import annotations

import numpy as np

from adaptkit.errors import DataError
from adaptkit.export.rule import Rule
from adaptkit.runtime.result import Array


def score(logits: Array, rule: Rule, temperature: float = 1.0) -> Array:
    """Score every sample as `export.score.add_score` does inside of a file, for answers of any kind of model.

    With p = softmax(logits / T): max p, p₁ − p₂ of the two largest, or −Σ p ln p.

    Args:
        logits: float32, N × classes.
        rule: Which score.
        temperature: T.

    Returns:
        float32, N.

    Example:
        >>> score(np.log(np.array([[0.5, 0.3, 0.2]], np.float32)), "margin").round(3)
        array([0.2], dtype=float32)
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    if temperature != 1:
        shifted /= np.float32(temperature)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    if rule == "entropy":
        entropy: Array = (p * (np.log(total) - shifted)).sum(axis=1)
        return entropy
    if rule == "confidence":
        return np.asarray(p.max(axis=1))
    p.partition(p.shape[1] - 2, axis=1)
    margin: Array = p[:, -1] - p[:, -2]
    return margin


def check_numbers(logits: Array) -> None:
    """Refuse an answer that is none.

    Raises:
        DataError: It holds NaN or infinity.
    """
    if not np.isfinite(logits).all():
        raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")
