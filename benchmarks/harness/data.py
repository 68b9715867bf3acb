"""The data and the networks that suites share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from adaptkit.loading.data import Data, load_data
from adaptkit.specs import DataSpec
from benchmarks.harness.suite import Place


def digits(place: Place) -> Data:
    """Read the digits, which come with scikit-learn."""
    return load_data(DataSpec(digits=True, validation=150, calibration=200, batch_size=64), place.seed)


def photographs(place: Place) -> Data:
    """Read CIFAR-10; raises `NotHere` without a data folder."""
    spec = DataSpec(
        imagefolder=str(place.folder() / "data" / "cifar10-jpeg.zip"), normalize="imagenet",
        augment=("pad_crop", "flip"), validation=5000, calibration=512, batch_size=64,
    )  # fmt: skip
    return load_data(spec, place.seed)


def everything(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Gather all samples of a split."""
    parts = list(batches)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
