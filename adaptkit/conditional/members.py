"""What several models say to the same samples, and how long each takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import get_clock_info, perf_counter, thread_time
from typing import TYPE_CHECKING

import numpy as np
import torch

from adaptkit.conditional.base import Artifact, opened
from adaptkit.conditional.thresholds import Array
from adaptkit.errors import DataError, ModelError
from adaptkit.export.packaging import Packaging
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.profiling.energy import estimate
from adaptkit.profiling.graph import graph_cost
from adaptkit.runtime.members import FOLDER

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.conditional.candidates import Candidate
    from adaptkit.export.rule import Rule
    from adaptkit.runtime import AdaptedModel
    from adaptkit.technique import Context

NEW_TO_ALL = (
    "the validation samples that this was chosen on have to be new to every model in it, also to those that are named: "
    "a model is surer of what it was trained on, and the bound then promises too much. adaptkit cannot see what it was"
)
"""What a report says wherever validation samples decide which model answers."""
_TIMED = 200
_clock = thread_time if get_clock_info("thread_time").resolution < 1e-6 else perf_counter
"""One thread does all the work, and its own time is what a run takes where nothing else runs."""


@dataclass(frozen=True)
class Said:
    """What models say to some samples.

    Args:
        x: The samples.
        logits: Models × N × classes.
        y: N, the classes they are of.
        original: N, whether the original model is right.
    """

    x: Array
    logits: Array
    y: Array
    original: Array

    @property
    def right(self) -> Array:
        """N × models: whether each is right."""
        found: Array = (self.logits.argmax(2) == self.y).T
        return found

    def part(self, rows: Array) -> Said:
        """Take some of the samples."""
        return Said(self.x[rows], self.logits[:, rows], self.y[rows], self.original[rows])


def gather(candidates: Sequence[Candidate], inner: Artifact, original: nn.Module, context: Context) -> list[Artifact]:
    """Load the models that an entry names, and put the one it is put around behind them.

    Raises:
        ModelError: One cannot be loaded or exported.
    """
    with evaluating(original), torch.no_grad():
        classes = first_output(original(*context.example_inputs)).shape[1]
    opset = max(entry.version for entry in inner.parts[0][0].opset_import if entry.domain in ("", "ai.onnx"))
    return [*(candidate.artifact(context, classes, opset) for candidate in candidates), inner]


@contextmanager
def all_opened(artifacts: Sequence[Artifact]) -> Iterator[list[AdaptedModel]]:
    """Run artifacts on ONNX Runtime, on one thread, for as long as the context lasts."""
    with ExitStack() as stack:
        yield [stack.enter_context(opened(artifact)) for artifact in artifacts]


def ask(models: Sequence[AdaptedModel], original: nn.Module, samples: BatchSource) -> Said:
    """Run every model on every sample.

    Raises:
        DataError: The samples do not fit a model.
        ModelError: A model answers other classes than the original.
    """
    seen: list[tuple[Array, ...]] = []
    with evaluating(original), torch.no_grad():
        for x, y in as_batches(samples):
            known = first_output(original(x))
            if y.ndim != 1 or y.is_floating_point() or known.ndim != 2:
                raise DataError(f"classes are needed, one a sample; got targets of shape {list(y.shape)}")
            images = x.numpy()
            logits = np.stack([_answer(number, model, images, known.shape[1]) for number, model in enumerate(models)])
            seen.append((images, logits.swapaxes(0, 1), y.numpy(), (known.argmax(1) == y).numpy()))
    inputs, logits, classes, right = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    return Said(inputs, logits.swapaxes(0, 1), classes, right)


def _answer(number: int, model: AdaptedModel, x: Array, classes: int) -> Array:
    takes = model.runner.first.get_inputs()[0].shape[1:]
    if list(x.shape[1:]) != takes:
        raise ModelError(f"model {number} takes {takes} and the samples are {list(x.shape[1:])}: name one of this data")
    logits = model(x).logits
    if logits.shape != (len(x), classes):
        raise ModelError(
            f"model {number} answers with shape {list(logits.shape)}, the original with {len(x)} × {classes} classes: "
            "name a model of the same classes"
        )
    return logits


def sample_seconds(runs: Sequence[Callable[[Array], int]], x: Array, samples: int = _TIMED) -> Array:
    """Time runs of one sample each on this thread, in turns, so that a machine that slows down slows all of them.

    A model whose samples take different ways counts each way with its median time and its share.

    Args:
        runs: Take a batch and say which way its sample took.
        x: Samples; they are taken in order, again from the start where there are too few.
        samples: How many are timed.

    Returns:
        Seconds a sample, one a run.
    """
    taken: list[dict[int, list[float]]] = [{} for _ in runs]
    for turn in range(-samples // 5, samples):
        row = x[turn % len(x)][None]
        for run, times in zip(runs, taken, strict=True):
            run(row)  # a server that runs one model finds its caches full of it, not of the others
            started = _clock()
            way = run(row)
            if turn >= 0:
                times.setdefault(way, []).append(_clock() - started)
    return np.array([sum(len(t) * median(t) for t in times.values()) / samples for times in taken])


class Run:
    """One model, for `sample_seconds`.

    Args:
        model: Opened.
        rule: Scores the answer, too; not where None.
    """

    def __init__(self, model: AdaptedModel, rule: Rule | None = None) -> None:
        self._runner, self._rule = model.runner, rule

    def __call__(self, x: Array) -> int:
        """Run one sample, and say which way it took."""
        from adaptkit.runtime.score import score

        result = self._runner(x)
        if self._rule is not None:
            score(result.logits, self._rule)
        return int(result.path[0])


def estimated_millijoules(artifact: Artifact) -> float:
    """Estimate the energy of a sample, see `profiling.energy.estimate`."""
    return sum(share * estimate(graph_cost(proto)).millijoules for proto, share in artifact.parts)


def write_members(members: Sequence[Artifact], folder: Path, packaging: Packaging) -> list[str]:
    """Write models into folders inside of another one.

    Returns:
        Their names, relative to the folder.
    """
    names = [f"{FOLDER}/{number}" for number in range(len(members))]
    for name, member in zip(names, members, strict=True):
        (folder / name).mkdir(parents=True)
        member.write(folder / name, packaging)
    return names
