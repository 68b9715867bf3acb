"""The PyTorch network behind an exported file: a run folder keeps it beside the file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from adaptkit.errors import ModelError
from adaptkit.loading.models import load_model
from adaptkit.loading.saved import STRUCTURE, load
from adaptkit.recipe import read_recipe
from adaptkit.run_dir import LOCK, RunFolder

_BASELINE, _RESULT = "baseline.onnx", "model.onnx"


def network_behind(path: Path, classes: int | None = None) -> nn.Module:
    """Load the network that a file of a run folder was exported from; of a conditional model the one inside it.

    Args:
        path: The run folder, or its model.onnx or baseline.onnx.
        classes: As `load_model` takes them.

    Raises:
        ModelError: There is no run folder around the file, or it is not the run's own.
        RecipeError: The model that the run started from is not where it was.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / LOCK).is_file() or (path.is_file() and path.name not in (_BASELINE, _RESULT)):
        raise ModelError(
            f"an ONNX file has no gradients, and {path} has no PyTorch model beside it: give a run folder of "
            f"adaptkit compress, or its {_RESULT} or {_BASELINE}"
        )
    recipe = read_recipe(folder / LOCK)

    def build() -> nn.Module:
        return load_model(recipe.model, classes, Path(recipe.folder or ""))

    if path.name == _BASELINE:
        return build()
    if (folder / STRUCTURE).is_file():
        return load(build, folder)
    steps = recipe.steps
    return load(build, RunFolder(folder).step(len(steps), steps[-1].name).path) if steps else build()
