"""What a run of an adapted model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnxruntime as ort

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Result:
    """The answers to one batch, and how they came about.

    Args:
        logits: N × classes, or whatever the first output of the model is.
        path: N, which way each sample took: a place in the model's `paths`.
        seconds: Time of the parts of the run, for the batch as a whole.
        waited: N, time until each sample had its answer.
    """

    logits: Array
    path: Array
    seconds: Mapping[str, float]
    waited: Array


class Runner(Protocol):
    """Runs batches that were checked before; may be called from many threads at once."""

    @property
    def first(self) -> ort.InferenceSession:
        """A session that takes the model's input and has its notes."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the ways a sample can take."""

    def __call__(self, x: Array) -> Result:
        """Run one batch of at least one sample."""
