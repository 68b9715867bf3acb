"""Quantization: one plan of scales, one simulator, one inserter."""

from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.static import StaticQuantization

__all__ = ["Grid", "QuantizationPlan", "StaticQuantization"]
