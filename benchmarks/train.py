"""Train the models of the recipes and benchmarks that no published weights exist for.

    ADAPTKIT_DATA=… python benchmarks/train.py vgg16_bn_cifar mobilenet_v2_cifar alexnet_cifar lenet5_caffe

Weights go to $ADAPTKIT_DATA/weights/NAME.safetensors, where the recipes look for them; figures go to
benchmarks/results/train.json. A killed run goes on where it was. One thread, so that the same weights come out again.
Products are in bfloat16, which halves the time on processors that have it: on one such core, half an hour for each of
the first two. The four files of Fashion-MNIST are looked for, unpacked, in
$ADAPTKIT_DATA/data/FashionMNIST/raw, where torchvision keeps them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from machine import RESULTS, machine

from adaptkit.files import write_atomically
from adaptkit.loading.data import load_data
from adaptkit.metrics.task import accuracy
from adaptkit.specs import DataSpec
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.index import builders

RESULT = RESULTS / "train.json"
VALIDATION = {"cifar10": 5000, "fashion": 10000}


@dataclass(frozen=True)
class Plan:
    """How one model is trained: passes over the data, and the highest learning rate of a one-cycle schedule."""

    epochs: int
    learning_rate: float
    batch_size: int = 128
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema: float | None = None
    data: Literal["cifar10", "fashion"] = "cifar10"


PLANS = {
    "vgg16_bn_cifar": Plan(epochs=5, learning_rate=0.1),
    "mobilenet_v2_cifar": Plan(epochs=5, learning_rate=0.2),
    "alexnet_cifar": Plan(20, 1e-3, optimizer="adamw", weight_decay=0.05, label_smoothing=0, ema=0.998),
    "lenet5_caffe": Plan(20, 0.05, precision="float32", label_smoothing=0, ema=0.998, data="fashion"),
}


def data_spec(data: str, root: Path, batch_size: int = 128) -> DataSpec:
    """Say where images are, and how they are fed."""
    held = {"validation": VALIDATION[data], "batch_size": batch_size}
    if data == "fashion":
        return DataSpec(torchvision="FashionMNIST", root=str(root / "data"), augment=("flip",), **held)
    archive = str(root / "data" / "cifar10-jpeg.zip")
    return DataSpec(imagefolder=archive, normalize="imagenet", augment=("pad_crop", "flip"), **held)


def train(name: str, plan: Plan, root: Path) -> dict[str, object]:
    """Train one model, keep its weights, and return its figures."""
    data = load_data(data_spec(plan.data, root, plan.batch_size), seed=0)
    torch.manual_seed(0)
    model = builders()[name]()
    shared = {"optimizer", "learning_rate", "weight_decay", "label_smoothing", "precision", "ema"}
    settings = FitSettings(**{key: value for key, value in asdict(plan).items() if key in shared})
    workspace = root / "weights" / f"{name}.training"
    started = time.monotonic()
    result = fit(
        model,
        data.train,
        epochs=plan.epochs,
        settings=settings,
        validation=data.validation,
        workspace=workspace,
    )
    weights = safetensors.torch.save({key: value.contiguous() for key, value in model.state_dict().items()})
    write_atomically(root / "weights" / f"{name}.safetensors", weights)
    return {
        **asdict(plan),
        "seconds": round(time.monotonic() - started),
        "validation_accuracy": [record.validation_accuracy for record in result.history],
        "accuracy": accuracy(model, data.test),
        "machine": machine(),
    }


def main() -> None:
    """Train the models named on the command line; earlier results of others stay."""
    torch.set_num_threads(1)
    root = Path(os.environ["ADAPTKIT_DATA"])
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in sys.argv[1:] or PLANS:
        results[name] = train(name, PLANS[name], root)
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        print(name, results[name]["accuracy"], results[name]["seconds"], "s")


if __name__ == "__main__":
    main()
