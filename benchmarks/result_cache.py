"""Result cache before ResNet-56: a stream over CIFAR-10 test images, and look-ups in caches of growing size.

    ADAPTKIT_DATA=… python benchmarks/result_cache.py [--requests 20000] [--exponent 1.0]

Writes benchmarks/results/result_cache.json. Keys are made from calibration images, thresholds chosen on validation
images, both of the training split, which the shared weights have seen all of. The stream draws test images by Zipf's
law, each time shifted, mirrored and with noise anew; it goes through the model alone and through the cache in turns, a
hundred requests each, one at a time. The network's answer to each request says whether a hit was right.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import RESULTS, machine
from safetensors.torch import load_file

from adaptkit.conditional.cachier import zipf
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.result_cache import Cached, Lists, ResultCache
from adaptkit.export.packaging import Packaging
from adaptkit.loading.data import Data, load_data
from adaptkit.metrics.bounds import share_bound
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import DataSpec
from adaptkit.technique import Context
from adaptkit_zoo.cifar_resnet import resnet56_cifar

TURN = 100
TARGET = 0.99
SIZES = (1_000, 10_000, 100_000)
WAYS: dict[str, dict[str, Any]] = {
    "embedding, exact": {},
    "embedding, lists": {"search": Lists(lists=512, probes=2)},
    "embedding, lists, target of 98.5 %": {"search": Lists(lists=512, probes=2), "target_precision": 0.985},
    "hash, exact": {"key": "hash", "cells": 8},
}


def stream(data: Data, requests: int, exponent: float, changes: Perturbations, seed: int) -> tuple[np.ndarray, ...]:
    """Draw requests: normalized images and their labels."""
    rng = np.random.default_rng(seed)
    images = torch.cat([x for x, _ in data.test])
    labels = torch.cat([y for _, y in data.test])
    popular = rng.permutation(len(images))
    drawn = popular[rng.choice(len(images), requests, p=zipf(len(images), exponent))]
    parts = [changes.apply(images[part], rng).numpy() for part in np.array_split(drawn, max(1, requests // 1000))]
    return np.concatenate(parts), labels.numpy()[drawn], drawn


def run(plain: AdaptedModel, cached: AdaptedModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """Send all requests through both, in turns."""
    own, given, path = [], [], []
    spent: dict[str, list[float]] = {"plain": [], "cached": []}
    for start in range(0, len(x), TURN):
        part = x[start : start + TURN]
        for name, model in (("plain", plain), ("cached", cached)):
            begun = time.perf_counter()
            results = [model(image[None]) for image in part]
            spent[name].append(time.perf_counter() - begun)
            classes = [int(result.logits.argmax()) for result in results]
            (own if name == "plain" else given).extend(classes)
            if name == "cached":
                path.extend(int(result.path[0]) for result in results)
    return {"own": np.array(own), "given": np.array(given), "path": np.array(path)} | {
        name: np.array(times) for name, times in spent.items()
    }


def lookups(cached: Cached, plain: AdaptedModel, folder: Path, x: np.ndarray) -> dict[str, dict[str, float]]:
    """Time making a key and searching, at several sizes, beside the model: A B A B."""
    found = {}
    keys = AdaptedModel.load(folder, threads=1).runner.keys(x)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for size in SIZES:
        index = cached_index(cached, keys.shape[1:], size)
        drawn = keys[rng.integers(0, len(keys), size)]
        if drawn.ndim == 2:
            drawn = drawn + 0.05 * rng.standard_normal(drawn.shape).astype(np.float32)
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        else:
            drawn = drawn ^ (np.uint64(1) << rng.integers(0, 64, size, np.uint64))
        for slot, key in enumerate(drawn):
            index.add(slot, key, slot % 10)
        runner: Any = AdaptedModel.load(folder, threads=1).runner
        times: dict[str, list[float]] = {"model": [], "key": [], "search": []}
        for image in x[:300]:
            image = image[None]
            begun = time.perf_counter()
            plain(image)
            ran = time.perf_counter()
            runner.keys(image)
            made_first = time.perf_counter()
            key = runner.keys(image)
            made = time.perf_counter()
            index.search(key)
            searched_first = time.perf_counter()
            index.search(key)
            searched = time.perf_counter()
            for name, seconds in (
                ("model", ran - begun),
                ("key", made - made_first),
                ("search", searched - searched_first),
            ):
                times[name].append(seconds)
        found[str(size)] = {name: 1e6 * median(values) for name, values in times.items()}
    return found


def cached_index(cached: Cached, shape: tuple[int, ...], capacity: int) -> Any:
    """Make an empty index of the kind that a cache has."""
    from adaptkit.conditional.cache_fit import Indexes

    return Indexes(cached.settings, cached.centres, shape)(capacity)


def measure(name: str, data: Data, weights: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fit one kind of cache, send the stream through it, and time its look-ups."""
    model = resnet56_cifar().eval()
    model.load_state_dict(load_file(weights))
    example = (torch.zeros(1, *data.sample_shape),)
    notes: list[str] = []
    context = Context(example_inputs=example, validation=data.validation, calibration=data.calibration, notes=notes)
    settings = {"target_precision": TARGET, "capacity": 20_000, "shadow_rate": chosen.shadow, **WAYS[name]}
    technique = ResultCache(**settings)
    begun = time.monotonic()
    cached = technique.wrap(PlainArtifact(model, example), model, context)
    seconds = time.monotonic() - begun
    x, y, drawn = stream(data, chosen.requests, chosen.exponent, technique.perturbations, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        packaging = Packaging()
        cached.write(Path(folder), packaging)
        plain = AdaptedModel.load(Path(folder, "inner"), threads=1)
        opened = AdaptedModel.load(folder, threads=1)
        for image in x[:50]:
            plain(image[None])
        ran = run(plain, opened, x)
        kept: Any = opened.runner
        statistics = kept.statistics
        looked = lookups(cached, plain, Path(folder), x[:2000])
    hit = ran["path"] == 0
    wrong = int((hit & (ran["given"] != ran["own"])).sum())
    ratios = ran["plain"] / ran["cached"]
    return {
        "requests": len(x),
        "target_precision": technique.target_precision,
        "distinct": len(np.unique(drawn)),
        "exponent": chosen.exponent,
        "hit_rate": float(hit.mean()),
        "hits": int(hit.sum()),
        "wrong": wrong,
        "precision": 1 - wrong / max(1, int(hit.sum())),
        "precision_low": 1 - share_bound(wrong, int(hit.sum())),
        "accuracy": {"model": float((ran["own"] == y).mean()), "cache": float((ran["given"] == y).mean())},
        "shadow": {"checks": statistics.shadowed, "agreed": statistics.agreed},
        "entries": statistics.entries,
        "unsure": statistics.unsure,
        "speedup": {
            "whole": float(ran["plain"].sum() / ran["cached"].sum()),
            "median": float(np.median(ratios)),
            "p10": float(np.quantile(ratios, 0.1)),
            "p90": float(np.quantile(ratios, 0.9)),
        },
        "lookup_us": looked,
        "threshold": cached.rule.threshold,
        "ratio": cached.rule.ratio,
        "min_confidence": cached.rule.min_confidence,
        "perturbations": technique.perturbations.model_dump(),
        "fit_seconds": round(seconds, 1),
        "notes": notes,
        "machine": machine(),
    }


def main() -> None:
    """Measure the named kinds; results of others stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=list(WAYS))
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--exponent", type=float, default=1.0)
    parser.add_argument("--shadow", type=float, default=0.01)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ["ADAPTKIT_DATA"])
    spec = DataSpec(
        imagefolder=str(folder / "data" / "cifar10-jpeg.zip"), normalize="imagenet", validation=5000, calibration=2000
    )
    data = load_data(spec, seed=0)
    path = RESULTS / "result_cache.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in chosen.ways:
        weights = folder / "weights" / "resnet56-cifar10-jpeg.safetensors"
        results[name] = measure(name, data, weights, chosen)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps({key: value for key, value in results[name].items() if key != "machine"}, indent=1))


if __name__ == "__main__":
    main()
