"""Accuracy of models on data the user names."""

from pathlib import Path
from typing import TYPE_CHECKING

from .artifact import samples_for

if TYPE_CHECKING:
    from adaptkit.metrics.file import PathAccuracy
    from adaptkit.metrics.measured import Outputs


def accuracy_on(path: Path, data: str) -> "PathAccuracy":
    """Measure the accuracy of a model over the test split of the data, by the way that samples took.

    Args:
        path: A file or folder.
        data: As `--data` takes it.
    """
    from adaptkit.metrics.file import path_accuracy
    from adaptkit.runtime import AdaptedModel

    return path_accuracy(AdaptedModel.load(path), samples_for(path, data))


def answers_on(path: Path, data: str) -> "tuple[PathAccuracy | None, Outputs]":
    """Do the same, and keep the answers; a model that gives numbers and no classes has no accuracy.

    Args:
        path: A file or folder.
        data: As `--data` takes it.
    """
    from adaptkit.metrics.file import file_outputs, gives_numbers, path_accuracy
    from adaptkit.metrics.measured import Outputs
    from adaptkit.runtime import AdaptedModel

    model, samples, outputs = AdaptedModel.load(path), samples_for(path, data), Outputs()
    if gives_numbers(model):
        return None, file_outputs(model, samples)
    return path_accuracy(model, samples, outputs), outputs
