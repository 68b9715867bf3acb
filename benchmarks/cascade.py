"""Cascades of ResNets on CIFAR-10 against the large network alone.

    ADAPTKIT_DATA=… python benchmarks/cascade.py

Writes benchmarks/results/cascade.json. The networks have seen all training images, on which they are surer than on
others, so thresholds come from half of the test images (every second one), and accuracy and latency from the other
half. How far that depends on the halves is told by twenty random ones, with the same answers and times.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, machine
from quantization import MODELS, images
from safetensors.torch import load_file

from adaptkit.conditional import cascade_calibration, members
from adaptkit.conditional.cascade import CascadeOfModels
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.thresholds import evaluate
from adaptkit.errors import TargetError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.packaging import Packaging
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context

DROP = 0.002
TIMED = 600
HALVINGS = 20


def network(folder: Path, name: str) -> torch.nn.Module:
    """Give a network with its shared weights."""
    build, weights = MODELS[name]
    model = build().eval()
    model.load_state_dict(load_file(folder / "weights" / f"{weights}.safetensors"))
    return model


def latency(model: AdaptedModel, alone: AdaptedModel, x: np.ndarray) -> dict[str, float]:
    """Run single samples through both in turns; mean times, and the ratio of means with its spread over ten parts."""
    times = np.empty((len(x), 2))
    for turn in range(-50, len(x)):
        for column, one in enumerate((model, alone)):
            started = time.perf_counter()
            one(x[turn][None])
            if turn >= 0:
                times[turn, column] = time.perf_counter() - started
    parts = [float(part[:, 1].mean() / part[:, 0].mean()) for part in np.array_split(times, 10)]
    return {
        "speedup": statistics.median(parts),
        "low": min(parts),
        "high": max(parts),
        "p50_ms": float(np.median(times[:, 0]) * 1e3),
        "p99_ms": float(np.quantile(times[:, 0], 0.99) * 1e3),
        "alone_p50_ms": float(np.median(times[:, 1]) * 1e3),
        "alone_p99_ms": float(np.quantile(times[:, 1], 0.99) * 1e3),
    }


def correct(model: AdaptedModel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Say which samples a model gets right."""
    return np.concatenate([model(x[i : i + 250]).logits.argmax(1) == y[i : i + 250] for i in range(0, len(x), 250)])


def cascade(settings: CascadeOfModels, inner: PlainArtifact, context: Context, held: tuple) -> dict[str, object]:
    """Calibrate on one half, and measure on the other."""
    notes: list[str] = []
    original = network(Path(os.environ["ADAPTKIT_DATA"]), "resnet56")
    made = settings.wrap(inner, original, context.replace(notes=notes))
    x, y = held
    with tempfile.TemporaryDirectory() as place:
        for name, artifact in (("cascade", made), ("alone", inner)):
            Path(place, name).mkdir()
            artifact.write(Path(place, name), Packaging())
        model, alone = (AdaptedModel.load(Path(place, name), threads=1) for name in ("cascade", "alone"))
        right, known = correct(model, x, y), correct(alone, x, y)
        shares = {each.name: each.share for each in model.statistics}
        order = np.random.default_rng(0).permutation(len(x))[:TIMED]
        timed = latency(model, alone, x[order])
    return {
        "accuracy": float(right.mean()),
        "accuracy_alone": float(known.mean()),
        "lost": int((known & ~right).sum()),
        "gained": int((right & ~known).sum()),
        "samples": len(y),
        "shares": shares,
        "thresholds": made.thresholds,
        "bound": made.outcome.bound,
        "notes": notes,
        **timed,
    }


def halvings(settings: CascadeOfModels, inner: PlainArtifact, context: Context, everything: tuple) -> dict[str, object]:
    """Calibrate on twenty random halves of the test images, each judged on its other half."""
    x, y = map(torch.from_numpy, everything)
    original = network(Path(os.environ["ADAPTKIT_DATA"]), "resnet56")
    artifacts = members.gather(settings.models, inner, original, context)
    with members.all_opened(artifacts) as models:
        said = members.ask(models, original, [(x[i : i + 250], y[i : i + 250]) for i in range(0, len(x), 250)])
        runs = [*(members.Run(model, settings.rule) for model in models[:-1]), members.Run(models[-1])]
        cost = members.sample_seconds(runs, said.x)
    drops, speedups, refused = [], [], 0
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(y))
        one, other = (
            cascade_calibration.replies(said.part(rows), settings.rule, [1.0] * len(settings.models), cost)
            for rows in np.array_split(order, 2)
        )
        try:
            kept, outcome = cascade_calibration.settle(one, cost, DROP, settings.confidence, seed)
        except TargetError:
            refused += 1
            continue
        assert kept == (0,)
        found = evaluate(other, outcome.thresholds)
        drops.append((found.lost - found.gained) / found.samples)
        speedups.append(float(cost[-1] / found.seconds))
    return {
        "halvings": HALVINGS,
        "refused": refused,
        "within": sum(drop <= DROP for drop in drops),
        "median_drop": statistics.median(drops),
        "worst_drop": max(drops),
        "median_speedup": statistics.median(speedups),
        "least_speedup": min(speedups),
    }


def main() -> None:
    """Measure three cascades."""
    folder = Path(os.environ["ADAPTKIT_DATA"])
    archive = folder / "data" / "cifar10-jpeg.zip"
    x, y = images(archive, "test")
    fit, _ = images(archive, "train", 512)
    tensor = torch.from_numpy(fit)
    example = (tensor[:2],)
    integers = StaticQuantization(rounding="nearest")
    quantizing = Context(example_inputs=example, calibration=(tensor, torch.zeros(len(tensor), dtype=torch.long)))
    validation = [
        (torch.from_numpy(x[::2][i : i + 250]), torch.from_numpy(y[::2][i : i + 250])) for i in range(0, 5000, 250)
    ]
    context = Context(example_inputs=example, validation=validation)
    large = PlainArtifact(network(folder, "resnet56"), example)
    large8 = PlainArtifact(integers.apply(network(folder, "resnet56"), quantizing), example)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, model in (("fp32", network(folder, "resnet20")), ("int8", None)):
            Path(place, name).mkdir()
            ready = model or integers.apply(network(folder, "resnet20"), quantizing)
            export_onnx(ready, example, Path(place, name, "model.onnx"))
        for title, little, inner in (
            ("ResNet-20 → ResNet-56", "fp32", large),
            ("ResNet-20 int8 → ResNet-56", "int8", large),
            ("ResNet-20 int8 → ResNet-56 int8", "int8", large8),
        ):
            settings = CascadeOfModels(models=[{"folder": str(Path(place, little))}], max_accuracy_drop=DROP)
            results[title] = {
                **cascade(settings, inner, context, (x[1::2], y[1::2])),
                "resampled": halvings(settings, inner, context, (x, y)),
            }
            print(title, json.dumps(results[title], indent=1))
    document = {"max_accuracy_drop": DROP, "cascades": results, "machine": machine()}
    (RESULTS / "cascade.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
