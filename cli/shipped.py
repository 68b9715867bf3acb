"""The recipes that come with adaptkit."""

from importlib import resources
from pathlib import Path

from adaptkit.errors import AdaptkitError
from adaptkit.reading.problem import hint


def shipped_recipes() -> dict[str, Path]:
    """Map the name of each shipped recipe to its file, sorted."""
    folder = Path(str(resources.files("adaptkit.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


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
