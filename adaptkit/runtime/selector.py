"""Runs a selector: a premodel says which model each sample goes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnxruntime as ort
from pydantic import Field, model_validator

from adaptkit.errors import ModelError
from adaptkit.runtime.manifest import Manifest, Positive
from adaptkit.runtime.members import Member, Members, check_alike, check_known
from adaptkit.runtime.result import Array, Result, Runner
from adaptkit.runtime.session import open_session

PREMODEL = "premodel.onnx"
VOTES = "votes"
"""Its output, N × models but the last: the share of the neighbours that speak for each model."""


class SelectorMember(Member):
    """A model of a selector.

    Args:
        threshold: It is used where its share of votes is at least this; None for the last, which gets the rest.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] | None


class SelectorManifest(Manifest):
    """A selector.

    Args:
        premodel: Name of its ONNX file.
        classes: Of every model.
        models: In the order of preference.
    """

    kind: Literal["selector"] = "selector"
    premodel: str
    classes: Annotated[Positive, Field(ge=2)]
    models: Annotated[tuple[SelectorMember, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _fits_together(self) -> SelectorManifest:
        check_known((model.folder for model in self.models), self.files)
        if self.premodel not in {file.name for file in self.files}:
            raise ValueError(f"{self.premodel} is not among the files")
        missing = [model.folder for model in self.models[:-1] if model.threshold is None]
        if missing:
            raise ValueError(f"{missing[0]} has no threshold")
        if self.models[-1].threshold is not None:
            raise ValueError(f"{self.models[-1].folder} is the last and gets the rest: it has no threshold")
        return self


class Selector:
    """A premodel and the models it chooses from; every model sees its samples as one batch.

    Args:
        premodel: Gives the votes.
        members: In the order of preference.
        manifest: How they work together.

    Raises:
        ModelError: The premodel was made for other models.
    """

    def __init__(self, premodel: ort.InferenceSession, members: Members, manifest: SelectorManifest) -> None:
        self.paths, self._members, self._premodel = members.paths, members, premodel
        check_alike("the models", members.first, manifest.premodel, premodel)
        votes = {value.name: value.shape for value in premodel.get_outputs()}.get(VOTES, [])
        if votes[1:] != [len(manifest.models) - 1]:
            raise ModelError(
                f"{manifest.premodel} gives no {VOTES} for {len(manifest.models) - 1} models: export the folder again"
            )
        self._input = premodel.get_inputs()[0].name
        self._limits = np.array([model.threshold for model in manifest.models[:-1]], np.float32)

    @classmethod
    def load(
        cls, folder: Path, manifest: SelectorManifest, threads: int | None, inside: Callable[[Path], Runner]
    ) -> Selector:
        """Open the premodel and the models of a folder."""
        members = Members.load(folder, manifest.models, manifest.classes, inside)
        return cls(open_session(folder / manifest.premodel, threads), members, manifest)

    @property
    def first(self) -> ort.InferenceSession:
        """A session that takes the input."""
        return self._members.first

    def __call__(self, x: Array) -> Result:
        """Run a batch.

        Raises:
            DataError: A model answers with NaN or infinity.
            ModelError: A model has other classes than the manifest says.
        """
        started = time.perf_counter()
        places = preferred(self._premodel.run([VOTES], {self._input: x})[0], self._limits)
        seconds = {"selection": time.perf_counter() - started}
        path, waited = np.zeros(len(x), np.int64), np.zeros(len(x))
        answers: Array | None = None
        for number in np.unique(places).tolist():
            rows = np.flatnonzero(places == number)
            asked = time.perf_counter() - started
            result = self._members.run(number, x if len(rows) == len(x) else x[rows])
            seconds |= result.seconds
            if answers is None:
                answers = np.empty((len(x), *result.logits.shape[1:]), result.logits.dtype)
            answers[rows], path[rows], waited[rows] = result.logits, result.path, asked + result.waited
        assert answers is not None
        return Result(answers, path, seconds, waited)


def preferred(votes: Array, limits: Array) -> Array:
    """Give the first model with enough votes, the last where none has.

    Args:
        votes: N × models but the last.
        limits: One a model but the last.

    Example:
        >>> preferred(np.array([[0.9, 0.1], [0.2, 0.8], [0.2, 0.1]]), np.array([0.5, 0.5])).tolist()
        [0, 1, 2]
    """
    enough = np.column_stack([votes >= limits, np.ones(len(votes), bool)])
    places: Array = enough.argmax(axis=1)
    return places
