"""Metrics: how well a model does its task, how fast it learns, what it sends.

Each is a small pure function; `measure` finds them by name, with an interval.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.metrics.calibration import ece, reliability
    from adaptkit.metrics.classification import accuracy, f1, mcc, precision, recall, roc_auc, top_k
    from adaptkit.metrics.communication import Link, Traffic, inference_traffic, measure_loopback, round_traffic
    from adaptkit.metrics.convergence import Convergence, Point, cost_to_target
    from adaptkit.metrics.losses import cross_entropy, kl, nll
    from adaptkit.metrics.measured import measure
    from adaptkit.metrics.registry import METRICS
    from adaptkit.metrics.regression import explained_variance, mae, max_error, mse, r2, rmse

__all__ = [
    "METRICS",
    "Convergence",
    "Link",
    "Point",
    "Traffic",
    "accuracy",
    "cost_to_target",
    "cross_entropy",
    "ece",
    "explained_variance",
    "f1",
    "inference_traffic",
    "kl",
    "mae",
    "max_error",
    "mcc",
    "measure",
    "measure_loopback",
    "mse",
    "nll",
    "precision",
    "r2",
    "recall",
    "reliability",
    "rmse",
    "roc_auc",
    "round_traffic",
    "top_k",
]

# Imported at the first use: parts of adaptkit that load nothing slow look into this package.
_HOMES = {
    "adaptkit.metrics.calibration": ("ece", "reliability"),
    "adaptkit.metrics.classification": ("accuracy", "f1", "mcc", "precision", "recall", "roc_auc", "top_k"),
    "adaptkit.metrics.communication": ("Link", "Traffic", "inference_traffic", "measure_loopback", "round_traffic"),
    "adaptkit.metrics.convergence": ("Convergence", "Point", "cost_to_target"),
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
