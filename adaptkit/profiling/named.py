"""Models that are named instead of given as a file: made, exported, and measured as that file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.models import load_model
from adaptkit.specs import ExportSpec, ModelSpec

_CHANNELS, _SIZE = 3, 224
_SLOW_TO_INITIALIZE = ("googlenet", "inception_v3")
_ONE_FILE = 2 * 10**9 - 10**8
"""Bytes of weights that fit an ONNX file, with room for its graph."""


@dataclass(frozen=True)
class Sample:
    """One sample of an input.

    Args:
        shape: Without the batch.
        kind: "float32", "int64", or another type that PyTorch and numpy know by this name.
    """

    shape: tuple[int, ...]
    kind: str = "float32"


def parse_sample(text: str) -> Sample:
    """Read the shape of a sample, and its type where that is no float32.

    Raises:
        ModelError: It is written in another way.

    Example:
        >>> parse_sample("3x224x224"), parse_sample("128:int64")
        (Sample(shape=(3, 224, 224), kind='float32'), Sample(shape=(128,), kind='int64'))
    """
    sizes, _, kind = text.partition(":")
    parts = sizes.split("x")
    if not all(part.isdecimal() for part in parts) or not isinstance(
        getattr(torch, kind or "float32", None), torch.dtype
    ):
        raise ModelError(
            f"{text!r} is not the shape of a sample: write its sizes without the batch, and the type where it is not "
            "float32, such as 3x224x224 or 128:int64"
        )
    return Sample(tuple(map(int, parts)), kind or "float32")


def export_named(name: str, samples: Sequence[Sample], path: Path) -> nn.Module:
    """Make a model and write it as an ONNX file.

    Args:
        name: torchvision:NAME (weights are random), zoo:NAME, or python:module:function.
        samples: One for each input; the model's own size where there are none.
        path: Of the file.

    Raises:
        ModelError: There is no such model, it cannot be made or exported, or a sample is needed.
    """
    source, _, rest = name.partition(":")
    if source == "torchvision":
        args = {"init_weights": False} if rest in _SLOW_TO_INITIALIZE else {}
        model = load_model(ModelSpec(torchvision=rest, args=args))
    elif source == "zoo":
        model = load_model(ModelSpec(zoo=rest))
    else:
        model = load_model(ModelSpec(python=rest))
    given = tuple(_example(sample) for sample in samples or _usual(source, rest, model))
    weights = sum(value.nbytes for value in model.state_dict().values())
    export_onnx(model, given, path, spec=ExportSpec(single_file=weights < _ONE_FILE))
    return model


def _example(sample: Sample) -> Tensor:
    return torch.zeros(2, *sample.shape, dtype=getattr(torch, sample.kind))


def _usual(source: str, name: str, model: nn.Module) -> tuple[Sample, ...]:
    if source == "zoo":
        from adaptkit_zoo import index

        return (Sample(index.input_shape(name)),)
    if source == "torchvision":
        from torchvision import models

        sizes = [entry.transforms().crop_size[0] for entry in models.get_model_weights(name)]
        # A transformer made without weights takes one size, which need not be that of its first weights.
        size = getattr(model, "image_size", next(iter(sizes), _SIZE))
        return (Sample((_CHANNELS, size, size)),)
    raise ModelError(
        f"python:{name} does not say what it takes: give the shape of a sample, such as --input 3x224x224, once for "
        "each input"
    )
