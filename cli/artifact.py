"""What a user may name where a model file is expected."""

from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.errors import DataError, ModelError

if TYPE_CHECKING:
    from adaptkit.loading.batches import Batches
    from adaptkit.loading.data import Data
    from adaptkit.specs import DataSpec

_FILE, _MANIFEST = "model.onnx", "manifest.json"


def artifact_path(text: str) -> Path:
    """Return the model a user means: an ONNX file, the model.onnx of a run folder, or a folder with a manifest.

    Raises:
        ModelError: There is no such file.
    """
    path = Path(text)
    if path.is_dir():
        if (path / _MANIFEST).is_file():
            return path
        if not (path / _FILE).is_file():
            raise ModelError(f"{path} holds no {_FILE} and no {_MANIFEST}: give an ONNX file or a finished run folder")
        return path / _FILE
    if not path.is_file():
        raise ModelError(f"no such file or folder: {path}")
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is not an .onnx file: give an ONNX file or a finished run folder")
    return path


def needs_data(path: Path, data: str | None) -> bool:
    """Say whether a model is conditional, so that only real samples can tell what it takes.

    Raises:
        DataError: It is, and there are none.
    """
    from adaptkit.profiling.artifact import is_conditional

    if not is_conditional(path):
        return False
    if data is None:
        raise DataError(
            f"{path} is conditional, and what it takes depends on the samples: give real ones, such as --data digits"
        )
    return True


def samples_for(path: Path, data: str) -> "Batches":
    """Read the test split of the data, as `data_for`."""
    return data_for(path, data).test


def data_for(path: Path, data: str) -> "Data":
    """Read the data.

    Args:
        path: A model; where the data names no normalization of its own, the one the model was made with is applied.
        data: As `--data` takes it.
    """
    from adaptkit.loading.data import load_data

    from .data_spec import parse_data

    spec, seed = parse_data(data)
    return load_data(_normalized(spec, path), seed)


def _normalized(spec: "DataSpec", path: Path) -> "DataSpec":
    from adaptkit.runtime import AdaptedModel
    from adaptkit.specs import Normalization

    used = AdaptedModel.load(path).normalize
    if spec.normalize != "none" or not used.mean:
        return spec
    return spec.model_copy(update={"normalize": Normalization(mean=used.mean, std=used.std)})
