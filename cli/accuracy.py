"""Accuracy of models on data the user names."""

from pathlib import Path
from typing import TYPE_CHECKING

from .artifact import samples_for

if TYPE_CHECKING:
    from adaptkit.metrics.file import PathAccuracy


def accuracy_on(path: Path, data: str) -> "PathAccuracy":
    """Measure the accuracy of a model over the test split of the data, by the way that samples took.

    Args:
        path: A file or folder.
        data: As `--data` takes it.
    """
    from adaptkit.metrics.file import path_accuracy
    from adaptkit.runtime import AdaptedModel

    return path_accuracy(AdaptedModel.load(path), samples_for(path, data))
