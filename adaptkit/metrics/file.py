"""How well an exported model does its task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batches
from adaptkit.metrics.measured import Outputs, measure_difference
from adaptkit.metrics.paired import compare_hits
from adaptkit.metrics.regression import r2
from adaptkit.metrics.task import is_number
from adaptkit.report.schema import MetricValue, PairedAccuracy
from adaptkit.runtime.model import AdaptedModel
from adaptkit.runtime.result import Array, Result
from adaptkit.training.losses import are_numbers


@dataclass(frozen=True)
class PathAccuracy:
    """How often a model is right, by the way that samples took.

    Args:
        names: Of the ways.
        taken: Samples that took each.
        right: Those of them that were answered right.
        hits: Of every sample in order, whether it was.
    """

    names: tuple[str, ...]
    taken: tuple[int, ...]
    right: tuple[int, ...]
    hits: tuple[bool, ...] = ()

    @property
    def samples(self) -> int:
        """All of them."""
        return sum(self.taken)

    @property
    def accuracy(self) -> float:
        """Over all samples."""
        return sum(self.right) / self.samples


@dataclass(frozen=True)
class PathNumbers:
    """What a model that gives a number a sample answered, over some samples in order.

    Args:
        given: Its numbers.
        target: The true ones.
    """

    given: Array
    target: Array

    @property
    def samples(self) -> int:
        """All of them."""
        return len(self.target)

    @property
    def r2(self) -> float:
        """Share of the variance of the true numbers that the model explains."""
        return r2(self.given, self.target)


Score: TypeAlias = PathAccuracy | PathNumbers
"""How well a model does its task, by what its targets are."""


def score(model: AdaptedModel, batches: Batches, *collectors: Collector) -> Score:
    """Measure how well a model does its task, over one pass: accuracy where targets are classes, R² where numbers.

    Args:
        model: Gives a score for each class, or a number.
        batches: Normalized inputs and targets.
        collectors: Get what the model answers, for further metrics.

    Raises:
        DataError: The model does not fit the targets.
    """
    if not are_numbers(batches.y):
        return path_accuracy(model, batches, *collectors)
    outputs = file_outputs(model, batches, *collectors)
    return PathNumbers(*outputs.together())


def figures_of(found: Score, split: Literal["", "validation_"] = "") -> dict[str, float]:
    """Name a score as `report.schema.Figures` has it.

    Example:
        >>> figures_of(PathAccuracy(("all",), taken=(4,), right=(3,)), "validation_")
        {'validation_accuracy': 0.75}
    """
    return {f"{split}accuracy": found.accuracy} if isinstance(found, PathAccuracy) else {f"{split}r2": found.r2}


def compare_scores(first: Score, second: Score) -> dict[str, PairedAccuracy | MetricValue]:
    """Say how two models differ that answered the same samples, as `report.schema.Report` has it."""
    if isinstance(first, PathAccuracy) and isinstance(second, PathAccuracy):
        return {"against_baseline": compare_hits(first.hits, second.hits)}
    assert isinstance(first, PathNumbers)
    assert isinstance(second, PathNumbers)
    found = measure_difference(["r2"], first.given, second.given, first.target)["r2"]
    return {"r2_against_baseline": found}


def file_accuracy(path: Path, batches: Batches) -> float:
    """Measure the top-1 accuracy of an ONNX file, or of the folder of an artifact, on real sessions.

    accuracy = (1/n) Σᵢ [argmax f(xᵢ) = yᵢ]

    Args:
        path: File or folder.
        batches: Normalized inputs and labels; a file that normalizes in its graph gets the pixels back.

    Raises:
        DataError: There is not one sample.
    """
    return path_accuracy(AdaptedModel.load(path), batches).accuracy


class Collector(Protocol):
    """Something that looks on while a model answers."""

    def add(self, given: Array, target: Array) -> None:
        """Take the outputs for some samples, and the truth."""


def path_accuracy(model: AdaptedModel, batches: Batches, *collectors: Collector) -> PathAccuracy:
    """Measure top-1 accuracy way by way, over one pass of the batches.

    A model with several ways gets one sample at a time: one file with exits decides for a batch as a whole.

    Args:
        model: Gives a score for each class.
        batches: Normalized inputs and labels.
        collectors: Get what the model answers, for further metrics.

    Raises:
        DataError: The model does not score classes.
    """
    taken, right = np.zeros(len(model.paths), np.int64), np.zeros(len(model.paths), np.int64)
    hits: list[bool] = []
    for result, target in _answers(model, batches):
        if result.logits.ndim != 2 or result.logits.shape[1] < 2:
            raise DataError(
                f"accuracy is of classes, and an answer of this model has the shape {list(result.logits.shape[1:])}: "
                "name metrics that fit, such as rmse"
            )
        np.add.at(taken, result.path, 1)
        hit = result.logits.argmax(axis=1) == target
        np.add.at(right, result.path, hit)
        hits += hit.tolist()
        for collector in collectors:
            collector.add(result.logits, target)
    return PathAccuracy(model.paths, tuple(taken.tolist()), tuple(right.tolist()), tuple(hits))


def gives_numbers(model: AdaptedModel) -> bool:
    """Say whether a model answers with a number a sample, and not with scores of classes."""
    shape = model.runner.first.get_outputs()[0].shape
    return len(model.paths) == 1 and is_number(tuple(shape[1:]))


def file_outputs(model: AdaptedModel, batches: Batches, *collectors: Collector) -> Outputs:
    """Collect what a model answers, over one pass of the batches."""
    outputs = Outputs()
    for result, target in _answers(model, batches):
        for collector in (outputs, *collectors):
            collector.add(result.logits, target)
    return outputs


def results(model: AdaptedModel, given: Array) -> Iterator[Result]:
    """Run a model on what it takes: in one call, or a sample at a time where there are several ways through it.

    Raises:
        DataError: It answers with NaN or infinity.
    """
    size = 1 if len(model.paths) > 1 else len(given)
    for start in range(0, len(given), size):
        result = model(given[start : start + size])
        if not np.isfinite(result.logits).all():
            raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")
        yield result


def _answers(model: AdaptedModel, batches: Batches) -> Iterator[tuple[Result, Array]]:
    for x, y in batches:
        start, target = 0, y.numpy()
        for result in results(model, model.expected_input(x.numpy())):
            yield result, target[start : start + len(result.logits)]
            start += len(result.logits)
