"""Runs the stages of an early exit: what is sure enough leaves, and only the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from adaptkit.errors import DataError
from adaptkit.export.rule import leaves_below
from adaptkit.runtime.manifest import Manifest, Stage
from adaptkit.runtime.result import Array, Result
from adaptkit.runtime.session import open_session


class StagedExits:
    """Stages in one process; the batch shrinks as samples leave.

    Args:
        sessions: One a stage.
        manifest: How they work together.
    """

    def __init__(self, sessions: Sequence[ort.InferenceSession], manifest: Manifest) -> None:
        self.sessions = tuple(sessions)
        self._below = leaves_below(manifest.rule)
        self._stages = [_OpenStage(session, stage) for session, stage in zip(sessions, manifest.stages, strict=True)]
        self.paths = tuple(f"exit {number}" for number in range(len(sessions)))

    @classmethod
    def load(cls, folder: Path, manifest: Manifest, threads: int | None) -> StagedExits:
        """Open the stages of a folder."""
        return cls([open_session(folder / stage.file.name, threads) for stage in manifest.stages], manifest)

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
