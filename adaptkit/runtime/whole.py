"""Runs a model that is one file."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort

from adaptkit.errors import ModelError
from adaptkit.export.metadata import EXIT_INDEX, exits_in
from adaptkit.runtime.result import Array, Result


class Whole:
    """One session that every sample goes through; where the file has exits, the batch leaves as a whole.

    Args:
        session: Of the file.

    Raises:
        ModelError: It takes no input, or more than one.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        exits = exits_in(session.get_modelmeta().custom_metadata_map)
        self.paths = tuple(f"exit {number}" for number in range(exits)) if exits else ("whole",)
        names = [value.name for value in session.get_inputs()]
        if len(names) != 1:
            raise ModelError(
                f"the model takes {len(names)} inputs ({', '.join(names)}), and samples have one: put the others into "
                "the graph as constants, or measure it without --data"
            )
        self.first, self._input = session, names[0]
        self._outputs = [session.get_outputs()[0].name, *([EXIT_INDEX] if exits else [])]

    def __call__(self, x: Array) -> Result:
        """Run a batch."""
        started = time.perf_counter()
        logits, *exits = self.first.run(self._outputs, {self._input: x})
        seconds = time.perf_counter() - started
        path = int(exits[0][0]) if exits else 0
        return Result(logits, np.full(len(x), path), {self.paths[path]: seconds}, np.full(len(x), seconds))
