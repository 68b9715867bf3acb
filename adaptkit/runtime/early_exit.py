"""Runs the stages of an early exit: what is sure enough leaves, and only the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
from pydantic import Field, model_validator

from adaptkit.errors import DataError
from adaptkit.export.rule import Rule, leaves_below
from adaptkit.runtime.manifest import Manifest, Part
from adaptkit.runtime.result import Array, Result
from adaptkit.runtime.session import open_session


class Value(Part):
    """What crosses from one stage to the next, for one sample.

    Args:
        name: In the ONNX files of both.
        dtype: numpy's name of its type.
        shape: Without the batch.
        bytes: On the wire.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: Annotated[int, Field(ge=0)]


class Stage(Part):
    """One stage of an early exit.

    Args:
        file: Name of its ONNX file.
        takes: Its input.
        gives: What the next stage takes; None for the last.
        logits: Name of its answer.
        score: Name of how sure it is; None for the last.
        threshold: Where a sample leaves: at least this score, or at most where the rule is entropy; None for the last.
    """

    file: str
    takes: Value
    gives: Value | None
    logits: str
    score: str | None
    threshold: float | None


class ExitsManifest(Manifest):
    """An early exit.

    Args:
        rule: What the scores are.
        stages: In order.
    """

    kind: Literal["early_exit"] = "early_exit"
    rule: Rule
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> ExitsManifest:
        known = {file.name for file in self.files}
        for stage, following in zip(self.stages, [*self.stages[1:], None], strict=True):
            if stage.file not in known:
                raise ValueError(f"{stage.file} is not among the files")
            if following is None:
                break
            if stage.gives != following.takes:
                raise ValueError(f"{following.file} does not take what {stage.file} gives")
            if stage.score is None or stage.threshold is None:
                raise ValueError(f"{stage.file} has no score or no threshold")
        return self


class StagedExits:
    """Stages in one process; the batch shrinks as samples leave.

    Args:
        sessions: One a stage.
        manifest: How they work together.
    """

    def __init__(self, sessions: Sequence[ort.InferenceSession], manifest: ExitsManifest) -> None:
        self._sessions = tuple(sessions)
        self._below = leaves_below(manifest.rule)
        self._stages = [_OpenStage(session, stage) for session, stage in zip(sessions, manifest.stages, strict=True)]
        self.paths = tuple(f"exit {number}" for number in range(len(sessions)))

    @classmethod
    def load(cls, folder: Path, manifest: ExitsManifest, threads: int | None, inside: object) -> StagedExits:
        """Open the stages of a folder."""
        del inside
        return cls([open_session(folder / stage.file, threads) for stage in manifest.stages], manifest)

    @property
    def first(self) -> ort.InferenceSession:
        """The first stage."""
        return self._sessions[0]

    def __call__(self, x: Array) -> Result:
        """Run a batch.

        Raises:
            DataError: The model answers with NaN or infinity.
        """
        started = time.perf_counter()
        seconds: dict[str, float] = {}
        before, going, crossing = 0.0, np.arange(len(x)), x
        path, waited = np.zeros(len(x), np.int64), np.zeros(len(x))
        answers: Array | None = None
        for number, stage in enumerate(self._stages):
            given = stage.run(crossing)
            now = time.perf_counter() - started
            seconds[self.paths[number]], before = now - before, now
            logits = given[stage.logits]
            leaving = self._leaving(stage, given)
            if answers is None:
                answers = np.empty((len(x), *logits.shape[1:]), logits.dtype)
            leavers = going[leaving]
            answers[leavers], path[leavers], waited[leavers] = logits[leaving], number, now
            if leaving.all():
                break
            going, crossing = going[~leaving], given[0][~leaving]
        assert answers is not None
        if not np.isfinite(answers).all():
            raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")
        return Result(answers, path, seconds, waited)

    def _leaving(self, stage: _OpenStage, given: list[Array]) -> Array:
        if stage.threshold is None:
            return np.ones(len(given[stage.logits]), bool)
        score = given[stage.score]
        sure: Array = score <= stage.threshold if self._below else score >= stage.threshold
        return sure


class _OpenStage:
    """A session and where its outputs are; what crosses comes first."""

    def __init__(self, session: ort.InferenceSession, stage: Stage) -> None:
        self._session, self._takes = session, stage.takes.name
        names = [name for name in (stage.gives and stage.gives.name, stage.logits, stage.score) if name]
        self._names = names
        self.logits = names.index(stage.logits)
        self.score = names.index(stage.score) if stage.score else -1
        self.threshold = None if stage.threshold is None else np.float32(stage.threshold)

    def run(self, x: Array) -> list[Any]:
        given: list[Any] = self._session.run(self._names, {self._takes: x})
        return given
