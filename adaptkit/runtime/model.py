"""Opens an exported model and runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adaptkit.errors import DataError
from adaptkit.export.metadata import Metadata, Normalize, read_metadata
from adaptkit.runtime.folder import open_runner
from adaptkit.runtime.result import Array, Result, Runner
from adaptkit.runtime.session import RUN_ERRORS, cannot_run
from adaptkit.runtime.statistics import Counter, PathStatistics

_CHANNEL_AXIS = 1


class AdaptedModel:
    """An exported model on ONNX Runtime, plain or conditional, with what it says about itself.

    May be called from many threads at once.

    Args:
        runner: Runs a batch, through one session or several.

    Example:
        >>> import tempfile, torch
        >>> from adaptkit.export.onnx import export_onnx
        >>> folder = Path(tempfile.mkdtemp())
        >>> export_onnx(torch.nn.Linear(4, 2), (torch.zeros(1, 4),), folder / "model.onnx", labels=("no", "yes"))
        >>> model = AdaptedModel.load(folder)
        >>> model(np.zeros((3, 4), np.float32)).logits.shape, model.labels
        ((3, 2), ('no', 'yes'))
    """

    def __init__(self, runner: Runner) -> None:
        self.metadata: Metadata = read_metadata(runner.first.get_modelmeta().custom_metadata_map)
        self.runner, self._input = runner, runner.first.get_inputs()[0]
        self._counter = Counter(runner.paths)

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None) -> AdaptedModel:
        """Open an ONNX file, or what a run folder holds: stages with their manifest, or model.onnx.

        Args:
            path: File or folder.
            threads: Threads within an operator; None takes one a core.

        Raises:
            ModelError: Nothing is there, a file is of another build, or ONNX Runtime cannot run it.
        """
        return cls(open_runner(Path(path), threads))

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the ways a sample can take through the model."""
        return self.runner.paths

    @property
    def statistics(self) -> tuple[PathStatistics, ...]:
        """The ways that samples took since the model was opened, their shares, and how long they waited."""
        return self._counter.read()

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class, in the order of the outputs; empty where the file has none."""
        return self.metadata.labels

    @property
    def normalize(self) -> Normalize:
        """What is done to pixels in [0, 1], and whether the file does it."""
        return self.metadata.normalize

    @property
    def recipe_sha256(self) -> str:
        """Of the recipe that made the file."""
        return self.metadata.recipe_sha256

    def __call__(self, x: Array) -> Result:
        """Run the model.

        Args:
            x: float32, N × …, normalized, unless the graph normalizes: then pixels in [0, 1].

        Returns:
            The first output, such as N × classes logits, and which way every sample took.

        Raises:
            DataError: Shape or type is wrong, there is no sample, or a value is NaN or infinite.
            ModelError: ONNX Runtime stops on the way: the files do not compute.
        """
        self._check(x)
        try:
            result = self.runner(x)
        except RUN_ERRORS as error:
            raise cannot_run(error) from error
        self._counter.add(result)
        return result

    def predict(self, x: Array) -> Array:
        """Run the model and return its first output alone."""
        return self(x).logits

    def classify(self, images: Array) -> Result:
        """Run the model on images.

        Args:
            images: uint8 N × H × W × C (or N × H × W for one channel), or floats in [0, 1] of the same layout.

        Raises:
            DataError: The images do not fit the model.
        """
        if images.ndim not in (3, 4):
            raise DataError(f"images are N × H × W × C, or N × H × W for one channel; got shape {list(images.shape)}")
        pixels = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images.astype(np.float32)
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(f"float images are in [0, 1]; got {pixels.min():g} to {pixels.max():g}. Divide by 255?")
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        return self(np.ascontiguousarray(pixels if self.normalize.in_graph else self._normalized(pixels)))

    def expected_input(self, normalized: Array) -> Array:
        """Turn normalized inputs into what the file takes: the pixels back, where it normalizes by itself."""
        if not self.normalize.in_graph:
            return normalized
        mean, std = self._statistics(normalized.ndim)
        pixels: Array = normalized * std + mean
        return pixels

    def _normalized(self, pixels: Array) -> Array:
        if not self.normalize.mean:
            return pixels
        if pixels.shape[_CHANNEL_AXIS] != len(self.normalize.mean):
            raise DataError(f"the model takes {len(self.normalize.mean)} channels; got {pixels.shape[_CHANNEL_AXIS]}")
        mean, std = self._statistics(pixels.ndim)
        normalized: Array = (pixels - mean) / std
        return normalized

    def _statistics(self, ndim: int) -> tuple[Array, Array]:
        shape = (1, -1, *[1] * (ndim - 2))
        mean = np.asarray(self.normalize.mean, np.float32).reshape(shape)
        return mean, np.asarray(self.normalize.std, np.float32).reshape(shape)

    def _check(self, x: Array) -> None:
        want = ["N" if isinstance(size, str) else size for size in self._input.shape]
        fits = x.ndim == len(want) and all(w in ("N", got) for w, got in zip(want, x.shape, strict=True))
        if not fits:
            shape = " × ".join(str(size) for size in want)
            raise DataError(f"the model takes {shape}; got shape {list(x.shape)}")
        if len(x) == 0:
            raise DataError("the batch is empty: give at least one sample")
        if self._input.type == "tensor(float)" and x.dtype != np.float32:
            raise DataError(f"the model takes float32; got {x.dtype}. Convert with x.astype(numpy.float32)")
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            raise DataError("the input holds NaN or infinity")
