"""A figure with its interval: what every metric gives."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from adaptkit.errors import AdaptkitError

CONFIDENCE = 0.95
ALIKE = "none: all resamples are alike"
"""Where every sample is right, say: these samples do not tell how rare an error is."""
FEW = "none: too few samples"


@dataclass(frozen=True)
class Estimate:
    """A figure of some samples, and where that of all possible samples is.

    Args:
        value: What was measured.
        low: Lower end; −∞ where nothing bounds it.
        high: Upper end; ∞ where nothing bounds it.
        method: How the ends were found, or why they were not.
    """

    value: float
    low: float
    high: float
    method: str

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The interval as JSON has it: None where nothing bounds it."""
        low, high = (end if isfinite(end) else None for end in (self.low, self.high))
        return low, high


def unbounded(value: float, reason: str) -> Estimate:
    """Give a figure of which nothing else is known.

    Example:
        >>> unbounded(1.0, ALIKE)
        Estimate(value=1.0, low=-inf, high=inf, method='none: all resamples are alike')
    """
    return Estimate(value, -inf, inf, reason)


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence.

    Raises:
        AdaptkitError: It is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise AdaptkitError(f"confidence is between 0 and 1, such as 0.95; got {confidence}")
