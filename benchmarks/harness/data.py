"""The data and the networks that suites share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adaptkit.loading.data import Data, load_data
from adaptkit.loading.models import load_model
from adaptkit.specs import DataSpec, ModelSpec
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


def trained(place: Place, large: bool = False) -> nn.Module:
    """Give the trained network of this size: the digits' one, or ResNet-20 (ResNet-56 where `large`) for CIFAR-10."""
    if place.smoke:
        return load_model(ModelSpec(zoo="resnet_digits"))
    name = "resnet56" if large else "resnet20"
    weights = place.folder() / "weights" / f"{name}-cifar10-jpeg.safetensors"
    return load_model(ModelSpec(zoo=f"{name}_cifar", weights=str(weights)))


def task(place: Place) -> Data:
    """Give the data of that network."""
    return digits(place) if place.smoke else photographs(place)
