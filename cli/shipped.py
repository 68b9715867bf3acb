"""The recipes that come with adaptkit."""

from importlib import import_module
from pathlib import Path

from adaptkit.errors import AdaptkitError
from adaptkit.reading.problem import hint

FOLDER = Path(import_module("adaptkit.recipes").__path__[0])


def shipped_recipes() -> dict[str, Path]:
    """Map the name of each shipped recipe to its file, sorted."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(text: str) -> Path:
    """Return the recipe file a user means: a path, or the name of a shipped recipe.

    Raises:
        AdaptkitError: There is neither.
    """
    if Path(text).exists():
        return Path(text)
    shipped = shipped_recipes()
    name = text.removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise AdaptkitError(f"{text}: no such file, and no shipped recipe of that name{hint(name, shipped)}")


def find_shipped(name: str) -> Path:
    """Return the file of a shipped recipe.

    Raises:
        AdaptkitError: There is none of that name.
    """
    shipped = shipped_recipes()
    if name not in shipped:
        raise AdaptkitError(f"{name}: no shipped recipe of that name{hint(name, shipped)}")
    return shipped[name]
