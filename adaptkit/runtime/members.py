"""Whole models inside of a folder, any of which may answer a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
from pydantic import Field

from adaptkit.errors import ModelError
from adaptkit.export.metadata import Metadata, read_metadata
from adaptkit.runtime.manifest import File, Part
from adaptkit.runtime.result import Array, Result, Runner
from adaptkit.runtime.score import check_numbers

FOLDER = "models"
"""Where they are: models/0, models/1, …"""


class Member(Part):
    """A model inside of a folder.

    Args:
        folder: What `AdaptedModel.load` opens, relative to the folder of the manifest.
    """

    folder: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]


def check_known(folders: Iterable[str], files: Iterable[File]) -> None:
    """Refuse a member none of whose files the manifest vouches for.

    Raises:
        ValueError: There is one.
    """
    names = [file.name for file in files]
    for folder in folders:
        if not any(name.startswith(f"{folder}/") for name in names):
            raise ValueError(f"no file of {folder} is among the files")


class Members:
    """Models that take the same input and answer the same classes.

    Args:
        runners: One a model.
        classes: How many there are.
        names: What to call them in messages.

    Raises:
        ModelError: They do not fit together.
    """

    def __init__(self, runners: Sequence[Runner], classes: int, names: Sequence[str]) -> None:
        for name, runner in zip(names, runners, strict=True):
            check_alike(names[-1], runners[-1].first, name, runner.first)
        self.runners, self._classes, self._names = tuple(runners), classes, names
        self.labels = [f"model {number}" for number in range(len(runners))]
        self.paths = flat_paths([runner.paths for runner in runners])
        self._starts = np.cumsum([0, *(len(runner.paths) for runner in runners)])

    @classmethod
    def load(cls, folder: Path, models: Sequence[Member], classes: int, inside: Callable[[Path], Runner]) -> Members:
        """Open the models of a folder."""
        places = [folder / model.folder for model in models]
        return cls([inside(place) for place in places], classes, [str(place) for place in places])

    @property
    def first(self) -> ort.InferenceSession:
        """A session that takes the input: the last model's, which the recipe itself made."""
        return self.runners[-1].first

    def run(self, number: int, x: Array) -> Result:
        """Let one of them answer; the paths of the result are those of all.

        Raises:
            DataError: It answers with NaN or infinity.
            ModelError: It has other classes than the manifest says.
        """
        result = self.runners[number](x)
        if result.logits.shape != (len(x), self._classes):
            raise ModelError(
                f"{self._names[number]} answers with shape {list(result.logits.shape)}, not {len(x)} × "
                f"{self._classes} classes: export the whole folder again"
            )
        check_numbers(result.logits)
        inner = self.runners[number].paths
        name = self.labels[number]
        seconds = {_flat(name, part, inner): spent for part, spent in result.seconds.items()}
        return Result(result.logits, result.path + self._starts[number], seconds, result.waited)


def flat_paths(inner: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Name the ways through several models: `model 0`, or `model 0: exit 1` where a model has ways of its own.

    Example:
        >>> flat_paths([("whole",), ("exit 0", "exit 1")])
        ('model 0', 'model 1: exit 0', 'model 1: exit 1')
    """
    return tuple(_flat(f"model {number}", path, paths) for number, paths in enumerate(inner) for path in paths)


def _flat(name: str, part: str, paths: tuple[str, ...]) -> str:
    return name if len(paths) == 1 else f"{name}: {part}"


def check_alike(wanted: str, like: ort.InferenceSession, name: str, other: ort.InferenceSession) -> None:
    """Refuse a session that takes another input than one that it runs beside, or was made for other data.

    Raises:
        ModelError: It does, or it takes batches of one size only.
    """
    takes, given = like.get_inputs()[0], other.get_inputs()[0]
    if not isinstance(given.shape[0], str):
        raise ModelError(f"{name} takes batches of {given.shape[0]} only: export it with a free batch dimension")
    if (takes.shape[1:], takes.type) != (given.shape[1:], given.type):
        raise ModelError(f"{name} takes {_sizes(given)} and {wanted} {_sizes(takes)}: name models of the same input")
    _check_notes(wanted, _notes(like), name, _notes(other))


def _check_notes(wanted: str, like: Metadata, name: str, other: Metadata) -> None:
    if other.normalize.in_graph != like.normalize.in_graph:
        inside, outside = (name, wanted) if other.normalize.in_graph else (wanted, name)
        raise ModelError(
            f"{inside} normalizes its input and {outside} does not: export both with the same normalize_in_graph"
        )
    both = (like.normalize.mean and other.normalize.mean) and like.normalize != other.normalize
    if both:
        raise ModelError(f"{name} normalizes otherwise than {wanted}: name models that were trained with the same data")
    if like.labels and other.labels and like.labels != other.labels:
        raise ModelError(f"{name} has other labels than {wanted}: name models of the same classes in the same order")


def _notes(session: ort.InferenceSession) -> Metadata:
    return read_metadata(session.get_modelmeta().custom_metadata_map)


def _sizes(value: Any) -> str:
    return " × ".join(str(size) for size in value.shape[1:])
