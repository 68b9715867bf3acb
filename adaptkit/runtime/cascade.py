"""Runs a cascade: a small model answers what it is sure of, and the next one is asked about the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnxruntime as ort
from pydantic import Field, model_validator

from adaptkit.export.rule import Rule, leaves_below
from adaptkit.runtime.manifest import Manifest, Positive
from adaptkit.runtime.members import Member, Members, check_known
from adaptkit.runtime.result import Array, Result, Runner
from adaptkit.runtime.score import score


class CascadeMember(Member):
    """A model of a cascade.

    Args:
        temperature: Its answers are divided by this before they are scored.
        threshold: Its answer stands where the score is at least this, or at most where the rule is entropy; None for
            the last.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    threshold: float | None


class CascadeManifest(Manifest):
    """A cascade.

    Args:
        rule: What the scores are.
        classes: Of every model.
        models: In the order they are asked.
    """

    kind: Literal["cascade"] = "cascade"
    rule: Rule
    classes: Annotated[Positive, Field(ge=2)]
    models: Annotated[tuple[CascadeMember, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _fits_together(self) -> CascadeManifest:
        check_known((model.folder for model in self.models), self.files)
        highest = math.log(self.classes) if self.rule == "entropy" else 1.0
        for model in self.models[:-1]:
            if model.threshold is None or not 0 <= model.threshold <= highest + 1e-6:
                raise ValueError(f"the threshold of {model.folder} is not from 0 to {highest:.4g}")
        if self.models[-1].threshold is not None:
            raise ValueError(f"{self.models[-1].folder} is the last and answers whatever is left: it has no threshold")
        return self


class Cascade:
    """Models asked one after the other; the batch shrinks as answers stand.

    Args:
        members: From the smallest to the largest.
        manifest: How they work together.
    """

    def __init__(self, members: Members, manifest: CascadeManifest) -> None:
        self.paths, self._members = members.paths, members
        self._rule, self._below = manifest.rule, leaves_below(manifest.rule)
        self._temperatures = [model.temperature for model in manifest.models]
        self._limits = [np.float32(model.threshold) for model in manifest.models[:-1] if model.threshold is not None]

    @classmethod
    def load(
        cls, folder: Path, manifest: CascadeManifest, threads: int | None, inside: Callable[[Path], Runner]
    ) -> Cascade:
        """Open the models of a folder."""
        del threads  # those inside are opened with as many
        return cls(Members.load(folder, manifest.models, manifest.classes, inside), manifest)

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
        seconds: dict[str, float] = {}
        going, rows = np.arange(len(x)), x
        path, waited = np.zeros(len(x), np.int64), np.zeros(len(x))
        answers: Array | None = None
        for number in range(len(self._temperatures)):
            asked = time.perf_counter()
            result = self._members.run(number, rows)
            answered = time.perf_counter()
            leaving = self._stands(number, result.logits)
            decided = time.perf_counter()
            seconds |= {**result.seconds, "decisions": seconds.get("decisions", 0.0) + decided - answered}
            if answers is None:
                answers = np.empty((len(x), *result.logits.shape[1:]), result.logits.dtype)
            leavers = going[leaving]
            answers[leavers], path[leavers] = result.logits[leaving], result.path[leaving]
            waited[leavers] = asked - started + result.waited[leaving] + decided - answered
            if leaving.all():
                break
            going, rows = going[~leaving], rows[~leaving]
        assert answers is not None
        return Result(answers, path, seconds, waited)

    def _stands(self, number: int, logits: Array) -> Array:
        if number == len(self._limits):
            return np.ones(len(logits), bool)
        found = score(logits, self._rule, self._temperatures[number])
        sure: Array = found <= self._limits[number] if self._below else found >= self._limits[number]
        return sure
