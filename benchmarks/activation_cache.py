"""Activation cache in a CIFAR-10 network: accuracy and latency of the stages beside the whole network.

    ADAPTKIT_DATA=… python benchmarks/activation_cache.py [vgg16] [--requests 3000] [--entries 10000]

Writes benchmarks/results/activation_cache.json. Known samples are training images without augmentation, limits are
chosen on validation images; the whole test split gives the accuracy, and a part of the stream of result_cache.py the
latency, one request at a time, through the network and through the cache in turns.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, machine
from result_cache import run, stream
from safetensors.torch import load_file

from adaptkit.conditional.activation_cache import ActivationCache
from adaptkit.conditional.base import opened
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.loading.data import Data, load_data
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import DataSpec
from adaptkit.technique import Context
from adaptkit_zoo.cifar_plain import vgg16_bn_cifar
from adaptkit_zoo.cifar_resnet import resnet20_cifar, resnet56_cifar

MODELS = {
    "resnet20": (resnet20_cifar, "resnet20-cifar10-jpeg"),
    "resnet56": (resnet56_cifar, "resnet56-cifar10-jpeg"),
    "vgg16": (vgg16_bn_cifar, "vgg16_bn_cifar"),
}


def accuracy(model: AdaptedModel, data: Data) -> tuple[float, list[float]]:
    """Share of the test images that are right, and the shares of the ways."""
    right, paths = [], []
    for x, y in data.test.with_batch_size(250):
        result = model(x.numpy())
        right.append(result.logits.argmax(1) == y.numpy())
        paths.append(result.path)
    shares = np.bincount(np.concatenate(paths), minlength=len(model.paths)) / sum(map(len, paths))
    return float(np.concatenate(right).mean()), shares.tolist()


def measure(name: str, data: Data, weights: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fit, and measure what was written."""
    build, file = MODELS[name]
    model = build().eval()
    model.load_state_dict(load_file(weights / f"{file}.safetensors"))
    example = (torch.zeros(1, *data.sample_shape),)
    notes: list[str] = []
    context = Context(example_inputs=example, train=data.train, validation=data.validation, notes=notes)
    plain = PlainArtifact(model, example)
    technique = ActivationCache(entries=chosen.entries, points=chosen.points, max_accuracy_drop=chosen.drop)
    begun = time.monotonic()
    found: dict[str, Any] = {
        "settings": technique.model_dump(),
        "machine": machine(),
        "notes": notes,
    }
    try:
        artifact = technique.wrap(plain, model, context)
    except TargetError as error:
        return found | {"refused": str(error)}
    found["fit_seconds"] = round(time.monotonic() - begun, 1)
    with tempfile.TemporaryDirectory() as folder, opened(plain) as whole:
        artifact.write(Path(folder), Packaging())
        cached = AdaptedModel.load(folder, threads=1)
        x, _, _ = stream(data, chosen.requests, 1.0, Perturbations(), seed=1)
        ran = run(whole, cached, x)
        before, _ = accuracy(whole, data)
        after, shares = accuracy(cached, data)
    ratios = ran["plain"] / ran["cached"]
    return found | {
        "points": [memory.point for memory in artifact.memories],
        "accuracy": {"network": before, "cache": after},
        "shares": shares,
        "requests": len(x),
        "speedup": {
            "whole": float(ran["plain"].sum() / ran["cached"].sum()),
            "median": float(np.median(ratios)),
            "p10": float(np.quantile(ratios, 0.1)),
            "p90": float(np.quantile(ratios, 0.9)),
        },
    }


def main() -> None:
    """Measure the named networks; results of others stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--entries", type=int, default=10000)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--drop", type=float, default=0.01)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ["ADAPTKIT_DATA"])
    spec = DataSpec(imagefolder=str(folder / "data" / "cifar10-jpeg.zip"), normalize="imagenet", validation=5000)
    data = load_data(spec, seed=0)
    path = RESULTS / "activation_cache.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in chosen.models:
        results[name] = measure(name, data, folder / "weights", chosen)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, {key: value for key, value in results[name].items() if key != "machine"})


if __name__ == "__main__":
    main()
