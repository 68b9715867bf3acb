"""Accuracy of model files on data the user names."""

from pathlib import Path
from typing import TYPE_CHECKING

from .data_spec import parse_data

if TYPE_CHECKING:
    from adaptkit.specs import DataSpec


def accuracy_on(path: Path, data: str) -> tuple[float, int]:
    """Measure the accuracy of an ONNX file over the test split of the data.

    Args:
        path: The file; where the data names no normalization of its own, the one the file was made with is applied.
        data: As `--data` takes it.

    Returns:
        The share of right answers, and the number of samples.
    """
    from adaptkit.loading.data import load_data
    from adaptkit.metrics.file import file_accuracy

    spec, seed = parse_data(data)
    test = load_data(_normalized(spec, path), seed).test
    return file_accuracy(path, test), sum(len(y) for _, y in test)


def _normalized(spec: "DataSpec", path: Path) -> "DataSpec":
    from adaptkit.runtime import AdaptedModel
    from adaptkit.specs import Normalization

    used = AdaptedModel.load(path).normalize
    if spec.normalize != "none" or not used.mean:
        return spec
    return spec.model_copy(update={"normalize": Normalization(mean=used.mean, std=used.std)})
