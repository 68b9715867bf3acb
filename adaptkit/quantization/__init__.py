"""Quantization: one plan of scales, one simulator, one inserter."""

from adaptkit.quantization.dynamic import DynamicQuantization
from adaptkit.quantization.mixed import MixedPrecision
from adaptkit.quantization.partial_sums import PartialSumQuantization
from adaptkit.quantization.plan import Grid, QuantizationPlan
from adaptkit.quantization.qat import QuantizationAwareTraining
from adaptkit.quantization.static import StaticQuantization
from adaptkit.quantization.weight_only import WeightOnlyQuantization

__all__ = [
    "DynamicQuantization",
    "Grid",
    "MixedPrecision",
    "PartialSumQuantization",
    "QuantizationAwareTraining",
    "QuantizationPlan",
    "StaticQuantization",
    "WeightOnlyQuantization",
]
