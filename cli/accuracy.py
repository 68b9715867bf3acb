"""How well models do on data the user names."""

from pathlib import Path
from typing import TYPE_CHECKING

from .artifact import samples_for

if TYPE_CHECKING:
    from adaptkit.metrics.file import PathAccuracy, Score
    from adaptkit.metrics.measured import Outputs


def score_on(path: Path, data: str) -> "Score":
    """Measure accuracy by the way that samples took, or R², over the test split of the data.

    Args:
        path: A file or folder.
        data: As `--data` takes it.
    """
    from adaptkit.metrics.file import score
    from adaptkit.runtime import AdaptedModel

    return score(AdaptedModel.load(path), samples_for(path, data))


def answers_on(path: Path, data: str) -> "tuple[PathAccuracy | None, Outputs]":
    """Measure the accuracy, and keep the answers; a model that gives numbers and no classes has none.

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
