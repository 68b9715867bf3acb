"""The errors adaptkit raises.

AdaptkitError                 anything wrong that the user can put right (exit code 2)
├── RecipeError               a recipe, or a value in it, is wrong; holds every problem found
├── ModelError                a model cannot be built, loaded or captured
├── DataError                 the data is missing, broken or does not fit the model
├── TargetError               no pruning (or quantization) reaches the target that was asked for
├── UnsupportedLayer          a layer cannot be handled, and leaving it alone would be wrong
├── ExportMismatch            the exported file does not compute what the PyTorch model computes
├── RunFolderError            the run folder is in use, cannot be written, or does not match the recipe
├── MissingExtra              an optional package is not installed
└── GateFailed                a gate of the recipe failed (exit code 3); everything is still written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptkit.report.schema import Report


class AdaptkitError(Exception):
    """Something is wrong that the user can put right; the message says how."""

    exit_code = 2

    def __str__(self) -> str:
        # Names from a damaged file may hold what is no Unicode, and no terminal can show.
        return super().__str__().encode(errors="backslashreplace").decode()


class RecipeError(AdaptkitError):
    """A recipe is wrong; the message lists every problem, one a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class ModelError(AdaptkitError):
    """A model cannot be built, loaded or captured."""


class DataError(AdaptkitError):
    """The data is missing, broken or does not fit the model."""


class TargetError(AdaptkitError):
    """The target that was asked for cannot be reached."""


class UnsupportedLayer(AdaptkitError):
    """A layer cannot be handled, and leaving it alone would be wrong."""


class ExportMismatch(AdaptkitError):
    """The exported file does not compute what the PyTorch model computes."""


class RunFolderError(AdaptkitError):
    """The run folder is in use, cannot be written, or belongs to another recipe."""


class MissingExtra(AdaptkitError):
    """An optional package is not installed; the message gives the pip command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: run  pip install 'adaptkit[{extra}]'")


class GateFailed(AdaptkitError):
    """A gate of the recipe failed; the run folder is complete all the same, and `report` is what was written."""

    exit_code = 3

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report
