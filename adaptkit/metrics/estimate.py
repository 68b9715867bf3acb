"""A figure with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that the function which made it describes.

    Args:
        value: What was measured.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float
