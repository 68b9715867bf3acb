"""Runs exported models on ONNX Runtime, without PyTorch."""

from adaptkit.runtime.model import AdaptedModel

__all__ = ["AdaptedModel"]
