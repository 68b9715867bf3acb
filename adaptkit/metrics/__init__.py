"""Metrics: how well a model does its task, how fast it learns, what it sends.

Each is a small pure function; `measure` finds them by name, with an interval.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.metrics.calibration import ece, reliability
    from adaptkit.metrics.classification import accuracy, f1, mcc, precision, recall, roc_auc, top_k
    from adaptkit.metrics.losses import cross_entropy, kl, nll
    from adaptkit.metrics.measured import measure
    from adaptkit.metrics.registry import METRICS
    from adaptkit.metrics.regression import explained_variance, mae, max_error, mse, r2, rmse

__all__ = [
    "METRICS",
    "accuracy",
    "cross_entropy",
    "ece",
    "explained_variance",
    "f1",
    "kl",
    "mae",
    "max_error",
    "mcc",
    "measure",
    "mse",
    "nll",
    "precision",
    "r2",
    "recall",
    "reliability",
    "rmse",
    "roc_auc",
    "top_k",
]

# Imported at the first use: parts of adaptkit that load nothing slow look into this package.
_HOMES = {
    "adaptkit.metrics.calibration": ("ece", "reliability"),
    "adaptkit.metrics.classification": ("accuracy", "f1", "mcc", "precision", "recall", "roc_auc", "top_k"),
    "adaptkit.metrics.losses": ("cross_entropy", "kl", "nll"),
    "adaptkit.metrics.measured": ("measure",),
    "adaptkit.metrics.registry": ("METRICS",),
    "adaptkit.metrics.regression": ("explained_variance", "mae", "max_error", "mse", "r2", "rmse"),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'adaptkit.metrics' has no attribute {name!r}")
    return getattr(import_module(home), name)
