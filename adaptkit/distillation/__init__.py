"""Distillation: learning from a teacher."""

from adaptkit.distillation.features import FeatureDistillation
from adaptkit.distillation.logits import LogitDistillation

__all__ = ["FeatureDistillation", "LogitDistillation"]
