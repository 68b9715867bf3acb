"""The `--data` option: which data a model is evaluated on."""

from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.errors import DataError

if TYPE_CHECKING:
    from adaptkit.specs import DataSpec

_FORMS = "digits, npz:FILE, imagefolder:PATH, torchvision:NAME, or a recipe file"
# Only the test split is read; a share fits data of any size.
_CALIBRATION = 0.1


def parse_data(text: str) -> "tuple[DataSpec, int]":
    """Read the value of `--data`.

    Args:
        text: `digits`, `npz:FILE`, `imagefolder:PATH`, `torchvision:NAME`, or a recipe (file or shipped name).

    Returns:
        The data section, and the seed that splits it: a recipe's own, or 0.

    Raises:
        DataError: The text is none of these, or the file is not there.
        RecipeError: The recipe is wrong.
    """
    from adaptkit.specs import DataSpec

    if text == "digits":
        return DataSpec(digits=True, calibration=_CALIBRATION), 0
    kind, colon, value = text.partition(":")
    if colon and value and kind == "npz":
        return DataSpec(npz=_existing(value), calibration=_CALIBRATION), 0
    if colon and value and kind == "imagefolder":
        return DataSpec(imagefolder=_existing(value), calibration=_CALIBRATION), 0
    if colon and value and kind == "torchvision":
        return DataSpec(torchvision=value, calibration=_CALIBRATION), 0
    return _from_recipe(text)


def _existing(text: str) -> str:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    return str(path)


def _from_recipe(text: str) -> "tuple[DataSpec, int]":
    from adaptkit.recipe import read_recipe

    from .shipped import shipped_recipes

    path = Path(text)
    if not path.is_file():
        if text not in shipped_recipes():
            raise DataError(f"--data {text} is neither a file nor one of: {_FORMS}")
        path = shipped_recipes()[text]
    if path.suffix == ".npz":
        raise DataError(f"--data {text} is no recipe: say npz:{text}")
    recipe = read_recipe(path)
    return recipe.data, recipe.seed
