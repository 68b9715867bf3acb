"""The contract of conditional computation: an artifact in, an artifact that skips work out.

Modules that define a Conditional import torch inside their methods only: recipes are checked without loading it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from adaptkit.technique import Context, Form, Technique

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from adaptkit.export.packaging import Packaging
    from adaptkit.runtime import AdaptedModel


class Artifact(Protocol):
    """Something that `write` turns into a folder which `AdaptedModel.load` opens."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the ways a sample can take, as the opened folder has them."""

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The networks it is made of, and the share of the samples that each one is expected to run for."""

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the PyTorch networks answer at the end of every path, each N × classes.

        None where a path has no network of its own, as a cache's hits.
        """

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write the files.

        Args:
            folder: Is there, and empty.
            packaging: For every file that takes the model's input.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written.
        """


class Conditional(BaseModel):
    """One way to skip work; its fields are the keys of an entry of a recipe's `conditional`.

    A recipe's entries are put around the model one after the other: each wraps what the one before it made. Thresholds
    are chosen on validation data, with a bound on what they cost against the original model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """The context fields that must be there, as a Technique's."""
    wraps: ClassVar[Literal["network", "artifact"]] = "artifact"
    """Whether it takes a network apart, so that nothing conditional may be around that yet, or whatever runs."""

    @property
    def refuses(self) -> Mapping[Form, str]:
        """What steps must not have made of the model, each with the reason."""
        return {}

    def check(self, model: nn.Module) -> list[str]:
        """List every reason why these settings do not fit this model, without changing or running it."""
        del model
        return []

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Artifact:
        """Make an artifact of another one, which must not be used afterwards; the original stays as it is.

        Args:
            inner: A `PlainArtifact` where it `wraps` a network.
            original: What the drop in accuracy is counted against.
            context: As a Technique's.
        """
        raise TypeError(f"{type(self).__name__} defines no wrap()")


def misplaced(entries: Sequence[Conditional | None], steps: Sequence[Technique]) -> Iterator[tuple[int, str]]:
    """Yield the entries of a recipe that cannot be put around what is there, each with the reason.

    Args:
        entries: Of the recipe; None for one that could not be read.
        steps: What comes before them.
    """
    made = {form: step.name for step in steps for form in step.leaves}
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        if index and entry.wraps == "network":
            yield index, f"{entry.name} takes a network apart: put it first"
        for form, reason in entry.refuses.items():
            if form in made:
                yield index, f"cannot be put around what {made[form]} leaves: {reason}"


@contextmanager
def opened(artifact: Artifact, threads: int = 1) -> Iterator[AdaptedModel]:
    """Run an artifact on ONNX Runtime for as long as the context lasts; it takes normalized inputs."""
    from adaptkit.export.packaging import Packaging
    from adaptkit.runtime import AdaptedModel

    with tempfile.TemporaryDirectory() as folder:
        artifact.write(Path(folder), Packaging())
        yield AdaptedModel.load(folder, threads)
