"""Runs the stages of an early exit: what is sure enough leaves, and only the rest goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
from pydantic import Field, model_validator

from adaptkit.export.rule import Rule, leaves_below
from adaptkit.runtime.fits import check_fits
from adaptkit.runtime.manifest import Count, Manifest, Part
from adaptkit.runtime.result import Array, Result
from adaptkit.runtime.session import open_session
from adaptkit.runtime.stages import Step, run_stages


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
    shape: tuple[Count, ...]
    bytes: Count


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
        below = leaves_below(manifest.rule)
        self._stages = [
            _OpenStage(session, stage, below) for session, stage in zip(sessions, manifest.stages, strict=True)
        ]
        self.paths = tuple(f"exit {number}" for number in range(len(sessions)))

    @classmethod
    def load(cls, folder: Path, manifest: ExitsManifest, threads: int | None, inside: object) -> StagedExits:
        """Open the stages of a folder."""
        del inside
        sessions = [open_session(folder / stage.file, threads) for stage in manifest.stages]
        for session, stage in zip(sessions, manifest.stages, strict=True):
            check_fits(session, folder / stage.file, stage.takes, (stage.gives, stage.logits, stage.score))
        return cls(sessions, manifest)

    @property
    def first(self) -> ort.InferenceSession:
        """The first stage."""
        return self._sessions[0]

    def __call__(self, x: Array) -> Result:
        """Run a batch.

        Raises:
            DataError: The model answers with NaN or infinity.
        """
        return run_stages(x, self._stages, self.paths)

    def crossing(self, x: Array, cut: int) -> tuple[Array, Array]:
        """Run the stages before a cut.

        Args:
            x: Of the first stage.
            cut: The first stage that is not run.

        Returns:
            What that stage would take, and the numbers of the samples that come so far.
        """
        going = np.arange(len(x))
        for stage in self._stages[:cut]:
            step = stage(x)
            x, going = step.crossing[~step.leaving], going[~step.leaving]
        return x, going


class _OpenStage:
    """A session, where its outputs are, and who leaves; what crosses comes first."""

    def __init__(self, session: ort.InferenceSession, stage: Stage, below: bool) -> None:
        self._session, self._takes, self._below = session, stage.takes.name, below
        names = [name for name in (stage.gives and stage.gives.name, stage.logits, stage.score) if name]
        self._names = names
        self._logits = names.index(stage.logits)
        self._score = names.index(stage.score) if stage.score else -1
        self._threshold = None if stage.threshold is None else np.float32(stage.threshold)

    def __call__(self, x: Array) -> Step:
        given: list[Any] = self._session.run(self._names, {self._takes: x})
        return Step(given[0], given[self._logits], self._leaving(given))

    def _leaving(self, given: list[Any]) -> Array:
        if self._threshold is None:
            return np.ones(len(given[self._logits]), bool)
        score = given[self._score]
        sure: Array = score <= self._threshold if self._below else score >= self._threshold
        return sure
