"""Distillation: learning from a teacher."""

from adaptkit.distillation.adversarial import AdversarialDistillation
from adaptkit.distillation.attention import AttentionDistillation
from adaptkit.distillation.cross_modal import CrossModalDistillation
from adaptkit.distillation.decoupled import DecoupledDistillation
from adaptkit.distillation.dist import RelationDistillation
from adaptkit.distillation.features import FeatureDistillation
from adaptkit.distillation.lifelong import LifelongDistillation
from adaptkit.distillation.logits import LogitDistillation
from adaptkit.distillation.multi_teacher import MultiTeacherDistillation

__all__ = [
    "AdversarialDistillation",
    "AttentionDistillation",
    "CrossModalDistillation",
    "DecoupledDistillation",
    "FeatureDistillation",
    "LifelongDistillation",
    "LogitDistillation",
    "MultiTeacherDistillation",
    "RelationDistillation",
]
