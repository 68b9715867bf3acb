"""Distillation: learning from a teacher."""

from adaptkit.distillation.logits import LogitDistillation

__all__ = ["LogitDistillation"]
