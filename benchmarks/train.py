"""Train the models of the recipes and benchmarks that no published weights exist for, on CIFAR-10.

    ADAPTKIT_DATA=… python benchmarks/train.py vgg16_bn_cifar mobilenet_v2_cifar

Weights go to $ADAPTKIT_DATA/weights/NAME.safetensors, where the recipes look for them; figures go to
benchmarks/results/train.json. A killed run goes on where it was. One thread, so that the same weights come out again.
Products are in bfloat16, which halves the time on processors that have it: on one such core, half an hour each.
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


@dataclass(frozen=True)
class Plan:
    """How one model is trained: passes over the data, and the highest learning rate of a one-cycle schedule."""

    epochs: int
    learning_rate: float
    batch_size: int = 128
    precision: Literal["float32", "bfloat16"] = "bfloat16"


PLANS = {
    "vgg16_bn_cifar": Plan(epochs=5, learning_rate=0.1),
    "mobilenet_v2_cifar": Plan(epochs=5, learning_rate=0.2),
}


def train(name: str, plan: Plan, root: Path) -> dict[str, object]:
    """Train one model, keep its weights, and return its figures."""
    spec = DataSpec(
        imagefolder=str(root / "data" / "cifar10-jpeg.zip"),
        normalize="imagenet",
        augment=("pad_crop", "flip"),
        validation=5000,
        batch_size=plan.batch_size,
    )
    data = load_data(spec, seed=0)
    torch.manual_seed(0)
    model = builders()[name]()
    settings = FitSettings(learning_rate=plan.learning_rate, label_smoothing=0.1, precision=plan.precision)
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
