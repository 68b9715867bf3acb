"""Pruning: channels, whole blocks."""

from adaptkit.pruning.depth import DepthPruning
from adaptkit.pruning.structured import StructuredPruning

__all__ = ["DepthPruning", "StructuredPruning"]
