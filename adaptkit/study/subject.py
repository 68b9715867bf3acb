"""What a study looks at: a model as it is served, with the data and, where there is one, the network behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.loading.batches import Batch, Batches
from adaptkit.loading.data import Data
from adaptkit.metrics.arrays import Array
from adaptkit.metrics.file import results
from adaptkit.runtime.model import AdaptedModel


@dataclass(frozen=True)
class Subject:
    """A model under study.

    Args:
        path: An ONNX file, or the folder of an artifact.
        model: The same, opened.
        data: Its splits; `test` is for figures, `validation` for whatever is fitted.
        find_network: Gives the PyTorch network that was exported, of normalized inputs.
    """

    path: Path
    model: AdaptedModel
    data: Data
    find_network: Callable[[], nn.Module]

    def outputs(self, pixels: Tensor) -> Array:
        """Give what the model answers to inputs before normalization, as it is served."""
        return np.concatenate([result.logits for result in results(self.model, self.given(pixels))])

    def given(self, pixels: Tensor) -> Array:
        """Make of inputs before normalization what the file takes."""
        return self.model.expected_input(self.normalized(pixels).numpy())

    def normalized(self, pixels: Tensor) -> Tensor:
        """Make of inputs before normalization what the PyTorch network takes."""
        return _normalized(pixels, self.data)

    def ways(self, count: int) -> Array:
        """Count the test samples that took each way through the model, of which there are so many."""
        taken = np.zeros(count, np.int64)
        for x, _ in self.data.test:
            for result in results(self.model, self.model.expected_input(x.numpy())):
                np.add.at(taken, result.path, 1)
        return taken

    def network(self) -> Denormalized:
        """Give the network behind the model, which takes inputs before normalization and has gradients.

        Raises:
            ModelError: There is none.
        """
        return Denormalized(self.find_network(), self.data)

    def draw(self, split: Batches, samples: int, seed: int) -> Batches:
        """Draw samples of a split, before normalization: the first ones of a folder are of one class.

        Args:
            split: Of `data`.
            samples: How many, at most.
            seed: Of the draw.
        """
        index = torch.arange(len(split.x)) if split.index is None else split.index
        if samples < len(index):
            chosen = np.sort(np.random.default_rng(seed).permutation(len(index))[:samples])
            index = index[torch.from_numpy(chosen)]
        return dataclasses.replace(split, index=index, mean=None, std=None, shuffle=False, augment=())


class Denormalized(nn.Module):
    """A network that takes inputs before normalization.

    Args:
        inner: Takes them after it.
        data: Whose normalization it is.
    """

    def __init__(self, inner: nn.Module, data: Data) -> None:
        super().__init__()
        self.inner, self.data = inner, data

    def forward(self, x: Tensor) -> Tensor:
        """Normalize and run."""
        output: Tensor = self.inner(_normalized(x, self.data))
        return output


def together(batches: Batches) -> Batch:
    """Give all samples at once."""
    parts = list(batches)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _normalized(pixels: Tensor, data: Data) -> Tensor:
    if data.mean is None or data.std is None:
        return pixels
    mean, std = (torch.tensor(each, dtype=pixels.dtype)[:, None, None] for each in (data.mean, data.std))
    return (pixels - mean) / std
