"""Distillation: learning from a teacher."""
