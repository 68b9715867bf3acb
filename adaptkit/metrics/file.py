"""Accuracy of an exported model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.loading.batches import Batches
from adaptkit.runtime.model import AdaptedModel


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


def path_accuracy(model: AdaptedModel, batches: Batches) -> PathAccuracy:
    """Measure top-1 accuracy way by way, over one pass of the batches.

    A model with several ways gets one sample at a time: one file with exits decides for a batch as a whole.
    """
    conditional = len(model.paths) > 1
    taken, right = np.zeros(len(model.paths), np.int64), np.zeros(len(model.paths), np.int64)
    hits: list[bool] = []
    for x, y in batches:
        given, target = model.expected_input(x.numpy()), y.numpy()
        for start in range(0, len(target), 1 if conditional else len(target)):
            part = slice(start, start + 1 if conditional else None)
            result = model(given[part])
            np.add.at(taken, result.path, 1)
            hit = result.logits.argmax(axis=1) == target[part]
            np.add.at(right, result.path, hit)
            hits += hit.tolist()
    return PathAccuracy(model.paths, tuple(taken.tolist()), tuple(right.tolist()), tuple(hits))
