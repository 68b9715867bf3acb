"""What a user may name where a model file is expected."""

from pathlib import Path

from adaptkit.errors import ModelError


def onnx_file(text: str) -> Path:
    """Return the ONNX file a user means: the file itself, or the model.onnx of a run folder.

    Raises:
        ModelError: There is no such file.
    """
    path = Path(text)
    if path.is_dir():
        if not (path / "model.onnx").is_file():
            raise ModelError(f"{path} holds no model.onnx: give an ONNX file or a finished run folder")
        return path / "model.onnx"
    if not path.is_file():
        raise ModelError(f"no such file or folder: {path}")
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is not an .onnx file: give an ONNX file or a finished run folder")
    return path
