"""The contract of conditional computation: a compressed model in, files that skip work out.

Modules that define a Conditional import torch inside their methods only: recipes are checked without loading it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from adaptkit.technique import Context

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn


class Artifact(Protocol):
    """What a Conditional makes of a model."""

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The networks it is made of, and the share of the samples that each one runs for."""

    def answers(self, x: Tensor) -> list[Tensor]:
        """Give what the PyTorch networks answer at the end of every path, each N × classes."""

    def write(self, folder: Path) -> None:
        """Write what `AdaptedModel.load` opens."""


class Conditional(BaseModel):
    """One way to skip work; its fields are the keys of an entry of a recipe's `conditional`.

    Thresholds are chosen on validation data, with a bound on what they cost against the original model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """The context fields that must be there, as a Technique's."""

    def check(self, model: nn.Module) -> list[str]:
        """List every reason why these settings do not fit this model, without changing or running it."""
        del model
        return []

    def wrap(self, model: nn.Module, original: nn.Module, context: Context) -> Artifact:
        """Make an artifact; the model may be edited and must not be used afterwards, the original stays as it is."""
        raise TypeError(f"{type(self).__name__} defines no wrap()")
