"""adaptkit makes a trained PyTorch model small, fast and frugal enough for an edge server, and proves it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adaptkit.errors import (
    AdaptkitError,
    DataError,
    ExportMismatch,
    GateFailed,
    MissingExtra,
    ModelError,
    RecipeError,
    RunFolderError,
    TargetError,
    UnsupportedLayer,
)

if TYPE_CHECKING:
    from adaptkit.loading.saved import load
    from adaptkit.pipeline import compress
    from adaptkit.profiling.summary import profile_file
    from adaptkit.recipe import Recipe, dump_recipe, parse_recipe, read_recipe
    from adaptkit.report.schema import Profile, Report
    from adaptkit.runtime import AdaptedModel
    from adaptkit.technique import Context, Technique
    from adaptkit.training.fit import fit

__version__ = "0.1.0"

__all__ = [
    "AdaptedModel",
    "AdaptkitError",
    "Context",
    "DataError",
    "ExportMismatch",
    "GateFailed",
    "MissingExtra",
    "ModelError",
    "Profile",
    "Recipe",
    "RecipeError",
    "Report",
    "RunFolderError",
    "TargetError",
    "Technique",
    "UnsupportedLayer",
    "__version__",
    "compress",
    "dump_recipe",
    "fit",
    "load",
    "parse_recipe",
    "profile_file",
    "read_recipe",
]

# Imported at the first use, so that `import adaptkit` does not load torch.
_HOMES = {
    "AdaptedModel": "adaptkit.runtime",
    "Context": "adaptkit.technique",
    "Profile": "adaptkit.report.schema",
    "Recipe": "adaptkit.recipe",
    "Report": "adaptkit.report.schema",
    "Technique": "adaptkit.technique",
    "compress": "adaptkit.pipeline",
    "dump_recipe": "adaptkit.recipe",
    "fit": "adaptkit.training.fit",
    "load": "adaptkit.loading.saved",
    "parse_recipe": "adaptkit.recipe",
    "profile_file": "adaptkit.profiling.summary",
    "read_recipe": "adaptkit.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adaptkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
