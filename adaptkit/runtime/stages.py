"""Runs stages one after the other; the batch shrinks as samples leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from adaptkit.errors import DataError, ModelError
from adaptkit.runtime.result import Array, Result


class Step(NamedTuple):
    """What a stage gives for the samples that came to it.

    Args:
        crossing: What the next stage takes.
        answers: One a sample; those of samples that go on are not read.
        leaving: Whether a sample leaves here.
    """

    crossing: Array
    answers: Array
    leaving: Array


RunStage: TypeAlias = Callable[[Array], Step]


def run_stages(x: Array, stages: Sequence[RunStage], names: Sequence[str]) -> Result:
    """Run a batch: what leaves is answered, and only the rest goes on.

    Args:
        x: Of the first stage.
        stages: At the last one everything leaves.
        names: Of the stages.

    Raises:
        DataError: An answer is NaN or infinite.
        ModelError: A stage does not answer sample by sample, or not as the one before it.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    before, going, crossing = 0.0, np.arange(len(x)), x
    path, waited = np.zeros(len(x), np.int64), np.zeros(len(x))
    answers: Array | None = None
    for number, (stage, name) in enumerate(zip(stages, names, strict=True)):
        step = stage(crossing)
        _check(step, len(going), answers, name)
        now = time.perf_counter() - started
        seconds[name], before = now - before, now
        if answers is None:
            answers = np.empty((len(x), *step.answers.shape[1:]), step.answers.dtype)
        leavers = going[step.leaving]
        answers[leavers], path[leavers], waited[leavers] = step.answers[step.leaving], number, now
        if step.leaving.all():
            break
        going, crossing = going[~step.leaving], step.crossing[~step.leaving]
    assert answers is not None
    if not np.isfinite(answers).all():
        raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")
    return Result(answers, path, seconds, waited)


def _check(step: Step, count: int, answers: Array | None, name: str) -> None:
    like = step.answers if answers is None else answers
    single = step.leaving.shape == (count,) and len(step.answers) == len(step.crossing) == count
    if not single or step.answers.shape[1:] != like.shape[1:]:
        raise ModelError(
            f"{name} answers {count} samples with shape {list(step.answers.shape)}, which is not one answer a sample, "
            "or not as the stage before: export the model again"
        )
