"""Runs a network in stages, and stops where the activations are like those of known samples, or of earlier ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
import safetensors.numpy
from pydantic import Field, model_validator
from safetensors import SafetensorError

from adaptkit.errors import ModelError
from adaptkit.runtime.early_exit import Value
from adaptkit.runtime.fits import check_fits
from adaptkit.runtime.learned import Entries, Learned, LearnedStatistics, Met
from adaptkit.runtime.manifest import Manifest, Part, Positive
from adaptkit.runtime.result import Array, Result
from adaptkit.runtime.session import open_session
from adaptkit.runtime.stages import Step, run_stages

MISS = "miss"
KEYS, ANSWERS = "keys", "answers"
_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "float64": "tensor(double)"}


class Memory(Part):
    """The known samples at the end of a stage.

    Args:
        file: Holds their keys, known × dimensions, unit vectors, and the network's answers, known × classes.
        key: Name of the stage's output that is compared with them.
        limits: How far away, as 1 − cosine, the farthest of the neighbours may be, for each class; below zero never.
    """

    file: str
    key: str
    limits: tuple[Annotated[float, Field(ge=-1, le=2)], ...]


class CachedStage(Part):
    """One stage of a network with an activation cache.

    Args:
        file: Name of its ONNX file.
        takes: Its input.
        gives: What the next stage takes; None for the last.
        memory: The known samples that its activations are compared with; None where there are none.
        entries: What is kept of earlier samples, in place of known ones; None where nothing is.
        logits: Name of the network's answer; None but for the last.
    """

    file: str
    takes: Value
    gives: Value | None
    memory: Memory | None
    entries: Entries | None = None
    logits: str | None


class ActivationManifest(Manifest):
    """An activation cache.

    Args:
        neighbours: How many of the nearest known samples must agree.
        stages: In order.
    """

    kind: Literal["activation_cache"] = "activation_cache"
    neighbours: Positive
    stages: Annotated[tuple[CachedStage, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _fits_together(self) -> ActivationManifest:
        known = {file.name for file in self.files}
        for stage, following in zip(self.stages, [*self.stages[1:], None], strict=True):
            for name in (stage.file, *([stage.memory.file] if stage.memory else [])):
                if name not in known:
                    raise ValueError(f"{name} is not among the files")
            if following is None:
                if stage.logits is None or stage.memory or stage.entries:
                    raise ValueError(f"{stage.file} is the last and has no answer, or a memory")
            elif stage.gives != following.takes:
                raise ValueError(f"{following.file} does not take what {stage.file} gives")
            elif (stage.memory is None) == (stage.entries is None):
                raise ValueError(f"{stage.file} has no memory, or two")
        if sum(stage.entries is not None for stage in self.stages) > 1:
            raise ValueError("earlier samples are kept at the end of more than one stage")
        return self


class ActivationCache:
    """Stages in one process; after each, samples that are like known or earlier ones leave.

    Args:
        sessions: One a stage.
        memories: Of all stages but the last.
        manifest: How they work together.
    """

    def __init__(
        self,
        sessions: Sequence[ort.InferenceSession],
        memories: Sequence[Neighbours | Learned],
        manifest: ActivationManifest,
    ) -> None:
        self.first = sessions[0]
        self.paths = (*(f"hit {number}" for number in range(len(memories))), MISS)
        self._learned = next((memory for memory in memories if isinstance(memory, Learned)), None)
        self._stages = [
            _Stage(session, stage, memory)
            for session, stage, memory in zip(sessions, manifest.stages, [*memories, None], strict=True)
        ]

    @classmethod
    def load(cls, folder: Path, manifest: ActivationManifest, threads: int | None, inside: object) -> ActivationCache:
        """Open the stages of a folder; nothing is kept of earlier samples yet."""
        del inside
        sessions = [open_session(folder / stage.file, threads) for stage in manifest.stages]
        for session, stage in zip(sessions, manifest.stages, strict=True):
            keys = [kept.key for kept in (stage.memory, stage.entries) if kept]
            check_fits(session, folder / stage.file, stage.takes, (stage.gives, *keys, stage.logits))
        memories = [
            _neighbours(folder, stage.memory, manifest)
            if stage.memory
            else _learned(folder, number, sessions, manifest)
            for number, stage in enumerate(manifest.stages[:-1])
        ]
        return cls(sessions, memories, manifest)

    @property
    def statistics(self) -> LearnedStatistics | None:
        """What was kept of earlier samples since the model was opened; None where nothing is kept."""
        return self._learned.statistics if self._learned else None

    def clear(self) -> None:
        """Forget all earlier samples; the known ones stay."""
        if self._learned:
            self._learned.clear()

    def __call__(self, x: Array) -> Result:
        """Run a batch; what it answers is kept once all of it is known.

        Raises:
            DataError: The model answers with NaN or infinity; nothing of the batch is kept.
        """
        run = _Run(np.arange(len(x)))
        result = run_stages(x, [functools.partial(stage, run) for stage in self._stages], self.paths)
        if self._learned and run.met:
            self._learned.learn(run.met, result.logits[run.met_by])
        return result


class Neighbours:
    """Known samples by the direction of their activations.

    Args:
        keys: Known × dimensions, unit vectors.
        answers: Known × classes.
        limits: One a class, on the distance of the farthest neighbour.
        count: How many neighbours must agree on the class.

    Example:
        >>> keys = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
        >>> known = Neighbours(keys, np.array([[2.0, 1], [3, 1], [0, 1]], np.float32), np.array([0.3, 0.3]), 2)
        >>> answers, hit = known.look_up(np.array([[1, 0], [0, 1]], np.float32))
        >>> hit.tolist(), answers[0].tolist()
        ([True, False], [2.5, 1.0])
    """

    def __init__(self, keys: Array, answers: Array, limits: Array, count: int) -> None:
        self._keys, self._answers, self._limits = np.ascontiguousarray(keys.T), answers, limits
        self._labels, self._count = answers.argmax(1), count

    def nearest(self, keys: Array) -> tuple[Array, Array, Array]:
        """Find the neighbours of N keys.

        Returns:
            Which they are, N × count; whether they agree, N; how far the farthest is, N.
        """
        cosines = keys @ self._keys
        rows = np.arange(len(keys))[:, None]
        chosen = cosines.argpartition(-self._count, axis=1)[:, -self._count :]
        labels = self._labels[chosen]
        return chosen, (labels == labels[:, :1]).all(1), 1 - cosines[rows, chosen].min(1)

    def look_up(self, keys: Array) -> tuple[Array, Array]:
        """Give the mean answer of the neighbours of N keys, and whether it may stand for the network's own."""
        chosen, agree, distances = self.nearest(keys)
        hit = agree & (distances <= self._limits[self._labels[chosen[:, 0]]])
        return self._answers[chosen].mean(1), hit


class _Run:
    """The samples of a batch that are still on their way, and what they met where earlier ones are kept.

    Args:
        going: Their places in the batch.
    """

    def __init__(self, going: Array) -> None:
        self.going = self.met_by = going
        self.met: Met | None = None


class _Stage:
    """A session and what its activations are compared with; what crosses comes first."""

    def __init__(self, session: ort.InferenceSession, stage: CachedStage, memory: Neighbours | Learned | None) -> None:
        self._session, self._takes, self._memory = session, stage.takes.name, memory
        key = stage.memory or stage.entries
        self._names = [name for name in (stage.gives and stage.gives.name, key and key.key, stage.logits) if name]

    def __call__(self, run: _Run, x: Array) -> Step:
        given: list[Any] = self._session.run(self._names, {self._takes: x})
        if self._memory is None:
            return Step(given[0], given[0], np.ones(len(x), bool))
        if isinstance(self._memory, Neighbours):
            answers, hit = self._memory.look_up(given[1])
        else:
            answers, hit, met = self._memory.look_up(given[1])
            if not hit.all():
                run.met, run.met_by = met.part(np.flatnonzero(~hit)), run.going[~hit]
        run.going = run.going[~hit]
        return Step(given[0], answers, hit)


def _learned(
    folder: Path, number: int, sessions: Sequence[ort.InferenceSession], manifest: ActivationManifest
) -> Learned:
    stage, last = manifest.stages[number], manifest.stages[-1]
    assert stage.entries is not None
    form = stage.entries.answer
    for file, session, name, wanted in (
        (stage.file, sessions[number], stage.entries.key, (_TYPES["float32"], [stage.entries.dimensions])),
        (last.file, sessions[-1], last.logits, (_TYPES[form.dtype], list(form.shape))),
    ):
        given = {value.name: (value.type, value.shape[1:]) for value in session.get_outputs()}
        if given.get(name) != wanted:
            raise ModelError(
                f"{folder / file} does not give {name} as {' of '.join(map(str, wanted))}, which the entries of "
                f"{stage.file} need: export the model again"
            )
    return Learned(stage.entries)


def _neighbours(folder: Path, memory: Memory, manifest: ActivationManifest) -> Neighbours:
    path = folder / memory.file
    try:
        found = safetensors.numpy.load_file(path)
        keys, answers = found[KEYS], found[ANSWERS]
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{path} holds no known samples: {error}. Export the model again") from error
    if len(keys) != len(answers) or len(keys) < manifest.neighbours:
        raise ModelError(
            f"{path} holds {len(keys)} keys and {len(answers)} answers, for {manifest.neighbours} neighbours: "
            "export the model again"
        )
    if answers.shape[1] != len(memory.limits):
        raise ModelError(f"{path} has {answers.shape[1]} classes, {len(memory.limits)} limits: export the model again")
    return Neighbours(keys, answers, np.asarray(memory.limits, np.float32), manifest.neighbours)
