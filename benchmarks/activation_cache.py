"""Activation cache in a CIFAR-10 network: accuracy and latency of the stages beside the whole network.

    ADAPTKIT_DATA=… python benchmarks/activation_cache.py [vgg16] [--requests 20000] [--exponent 1.2] [--capacity 10000]

Writes benchmarks/results/activation_cache.json. Known samples are training images without augmentation, limits are
chosen on validation images. The stream of result_cache.py goes through the network and through the cache in turns, one
request at a time; the cache is empty when it begins. The test split goes through another copy of the cache, which
is opened anew: none of its images comes twice, so that it shows what known samples alone do, and what false hits cost.
There, too, every image goes by itself, in mixed order, and is kept for those that follow.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, machine
from result_cache import run, stream
from safetensors.torch import load_file

from adaptkit.conditional.activation_cache import ActivationCache, Recalled
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


def on_test(whole: AdaptedModel, cached: AdaptedModel, data: Data, images: int) -> dict[str, Any]:
    """Accuracy on test images, and the shares of the ways; the cache has them one at a time."""
    mixed = np.random.default_rng(0).permutation(data.test.num_samples)[:images]  # they come sorted by class
    x, y = (torch.cat(each).numpy()[mixed] for each in zip(*data.test, strict=True))
    own = np.concatenate([whole(x[at : at + 250]).logits.argmax(1) for at in range(0, len(x), 250)])
    given = np.concatenate([cached(image[None]).logits.argmax(1) for image in x])
    return {
        "images": len(x),
        "accuracy": {"network": float((own == y).mean()), "cache": float((given == y).mean())},
        "shares": {way.name: way.share for way in cached.statistics},
    }


def on_stream(whole: AdaptedModel, folder: Path, data: Data, chosen: argparse.Namespace) -> dict[str, Any]:
    """Send the stream through the network and through a cache that has kept nothing yet."""
    cached = AdaptedModel.load(folder, threads=1)
    x, y, drawn = stream(data, chosen.requests, chosen.exponent, Perturbations(), seed=1)
    for image in x[:50]:
        whole(image[None])
    ran = run(whole, cached, x)
    ratios = ran["plain"] / ran["cached"]
    kept: Any = cached.runner
    hit = ran["path"] < len(cached.paths) - 1
    return {
        "requests": len(x),
        "exponent": chosen.exponent,
        "distinct": len(np.unique(drawn)),
        "accuracy": {"network": float((ran["own"] == y).mean()), "cache": float((ran["given"] == y).mean())},
        "lost": int(((ran["own"] == y) & (ran["given"] != y)).sum()),
        "gained": int(((ran["own"] != y) & (ran["given"] == y)).sum()),
        "agrees_where_it_stops": float((ran["own"] == ran["given"])[hit].mean()),
        "shares": {way.name: way.share for way in cached.statistics},
        "kept": kept.statistics and asdict(kept.statistics),
        "ms": {name: 1e3 * float(ran[key].sum()) / len(x) for name, key in (("network", "plain"), ("cache", "cached"))},
        "speedup": {
            "whole": float(ran["plain"].sum() / ran["cached"].sum()),
            "median": float(np.median(ratios)),
            "p10": float(np.quantile(ratios, 0.1)),
            "p90": float(np.quantile(ratios, 0.9)),
        },
    }


def measure(name: str, data: Data, weights: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fit, and measure what was written."""
    build, file = MODELS[name]
    model = build().eval()
    model.load_state_dict(load_file(weights / f"{file}.safetensors"))
    example = (torch.zeros(1, *data.sample_shape),)
    notes: list[str] = []
    context = Context(example_inputs=example, train=data.train, validation=data.validation, notes=notes)
    plain = PlainArtifact(model, example)
    technique = ActivationCache(
        entries=chosen.entries, points=chosen.points, max_accuracy_drop=chosen.drop, capacity=chosen.capacity
    )
    begun = time.monotonic()
    found: dict[str, Any] = {
        "settings": technique.model_dump(mode="json"),
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
        streamed = on_stream(whole, Path(folder), data, chosen)
        tested = on_test(whole, AdaptedModel.load(folder, threads=1), data, chosen.images)
    return found | {
        "points": [
            {"point": memory.point, "of": "earlier" if isinstance(memory, Recalled) else "known"}
            for memory in artifact.memories
        ],
        "stream": streamed,
        "test": tested,
    }


def main() -> None:
    """Measure the named networks; results of others stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--exponent", type=float, default=1.2)
    parser.add_argument("--capacity", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=10000)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--drop", type=float, default=0.005)
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
