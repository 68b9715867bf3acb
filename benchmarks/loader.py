"""What the loader and the loop cost: `fit` beside a bare loop over tensors in memory, on ResNet-56 and CIFAR-10.

Three ways to train on the same images take turns, batch size 128, one thread, for a few batches each:

- bare: tensors that are decoded, normalized and in channels-last order already; forward, backward, SGD step.
- fit: `fit` over the memory-mapped cache, shuffled and normalized on the way, no augmentation.
- fit_augmented: the same with pad_crop and flip.

Run: `ADAPTKIT_DATA=… python benchmarks/loader.py`; the result goes to benchmarks/results/loader.json. Ratios are taken
within each turn, so that other work on the machine hits both sides alike.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import RESULTS, machine
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.loading.batches import Batches
from adaptkit.loading.data import load_data
from adaptkit.loading.models import load_model
from adaptkit.specs import DataSpec, ModelSpec
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings

BATCH_SIZE = 128
BATCHES = 5
TURNS = 6
RESULT = RESULTS / "loader.json"


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    root = Path(os.environ["ADAPTKIT_DATA"])
    spec = DataSpec(
        imagefolder=str(root / "data" / "cifar10-jpeg.zip"),
        normalize="imagenet",
        validation=5000,
        batch_size=BATCH_SIZE,
    )
    data = load_data(spec, seed=0)
    model = load_model(ModelSpec(zoo="resnet56_cifar", weights=str(root / "weights/resnet56-cifar10-jpeg.safetensors")))
    ways = ways_to_train(model, data.train)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, train in ways.items():
            started, worked = time.perf_counter(), time.process_time()
            train()
            if turn > 0:  # the first turn warms up
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - worked)
        sys.stderr.write(f"turn {turn} of {TURNS}\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(summary(wall, cpu), indent=1) + "\n")
    sys.stdout.write(RESULT.read_text())


def ways_to_train(model: nn.Module, train: Batches) -> dict[str, Callable[[], None]]:
    """Give the three functions that each train on the same number of images."""
    assert train.index is not None
    part = dataclasses.replace(train, index=train.index[: BATCHES * BATCH_SIZE])
    augmented = dataclasses.replace(part, augment=("pad_crop", "flip"))
    x = torch.cat([x for x, _ in part]).contiguous(memory_format=torch.channels_last)
    y = torch.cat([y for _, y in part])
    settings = FitSettings(schedule="constant", learning_rate=1e-3)
    bare, plain, changed = (copy.deepcopy(model) for _ in range(3))
    bare.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(bare.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return {
        "bare": lambda: bare_loop(bare, optimizer, x, y),
        "fit": lambda: _discard(fit(plain, part, epochs=1, settings=settings)),
        "fit_augmented": lambda: _discard(fit(changed, augmented, epochs=1, settings=settings)),
    }


def bare_loop(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """Train one epoch, with nothing that training does not need."""
    model.train()
    for start in range(0, len(x), BATCH_SIZE):
        loss = F.cross_entropy(model(x[start : start + BATCH_SIZE]), y[start : start + BATCH_SIZE])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def summary(wall: dict[str, list[float]], cpu: dict[str, list[float]]) -> dict[str, object]:
    """Reduce the turns to medians and quartiles."""
    return {
        "what": "training time of ResNet-56 on CIFAR-10 against a bare loop, paired turn by turn",
        "batch_size": BATCH_SIZE,
        "batches_a_turn": BATCHES,
        "turns": TURNS,
        "threads": 1,
        "wall": _figures(wall),
        "cpu_time": _figures(cpu),
        "machine": machine(),
    }


def _figures(seconds: dict[str, list[float]]) -> dict[str, dict[str, object]]:
    ratios = {name: [a / b for a, b in zip(own, seconds["bare"], strict=True)] for name, own in seconds.items()}
    return {
        "median_seconds": {name: round(statistics.median(own), 3) for name, own in seconds.items()},
        "median_ratio": {name: round(statistics.median(own), 4) for name, own in ratios.items()},
        "ratio_quartiles": {name: [round(q, 4) for q in statistics.quantiles(own)] for name, own in ratios.items()},
    }


def _discard(_: object) -> None:
    return None


if __name__ == "__main__":
    main()
