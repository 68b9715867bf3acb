"""Cascades of ResNets on CIFAR-10 against the large network alone.

    ADAPTKIT_DATA=… python benchmarks/cascade.py WORK

Writes benchmarks/results/cascade.json; the folder WORK keeps networks and answers, for selector.py too. The networks
have seen all training images, on which they are surer than on others, so thresholds come from half of the test images
(every second one), and accuracy, shares and latency from the other half. How often the bound holds is told by draws of
5,000 images from all, on which thresholds are found that all images then judge. Latency: single samples, the cascade
and the network alone take turns; time of the thread that does all the work, the median of each way by its share.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, machine
from resnets import answers

from adaptkit.conditional.cascade import Cascaded
from adaptkit.conditional.cascade_calibration import replies, settle
from adaptkit.conditional.finished import Finished
from adaptkit.conditional.members import Run, Said, all_opened, sample_seconds
from adaptkit.conditional.thresholds import Array, evaluate
from adaptkit.errors import TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.runtime import AdaptedModel

DROP = 0.002
DRAWS = 40
CASCADES = {
    "ResNet-20 → ResNet-56": ["resnet20", "resnet56"],
    "ResNet-20 int8 → ResNet-56": ["resnet20_int8", "resnet56"],
    "ResNet-20 int8 → ResNet-56 int8": ["resnet20_int8", "resnet56_int8"],
}


def measured(members: tuple[Finished, ...], said: Said, cost: Array) -> dict[str, object]:
    """Find the threshold on one half, and run the files on the other."""
    known, held = said.part(np.arange(0, len(said.y), 2)), said.part(np.arange(1, len(said.y), 2))
    kept, outcome = settle(replies(known, "margin", [1.0], cost), cost, DROP, 0.95, 0)
    made = Cascaded(tuple(members[n] for n in (*kept, -1)), "margin", (1.0,), outcome.thresholds, 10, outcome)
    with tempfile.TemporaryDirectory() as folder:
        made.write(Path(folder), Packaging())
        model = AdaptedModel.load(folder, threads=1)
        results = [model(held.x[i : i + 250]) for i in range(0, len(held.y), 250)]
        shares = {each.name: each.share for each in model.statistics}
        with all_opened(members[-1:]) as alone:
            order = np.random.default_rng(0).permutation(len(held.y))
            spent = sample_seconds([Run(model), Run(alone[0])], held.x[order], samples=300)
    right = np.concatenate([result.logits for result in results]).argmax(1) == held.y
    return {
        "accuracy": float(right.mean()),
        "accuracy_original": float(held.original.mean()),
        "lost": int((held.original & ~right).sum()),
        "gained": int((right & ~held.original).sum()),
        "samples": len(held.y),
        "bound": outcome.bound,
        "threshold": outcome.thresholds[0],
        "shares": shares,
        "mean_ms": float(spent[0] * 1e3),
        "alone_ms": float(spent[1] * 1e3),
        "worst_ms": float(cost.sum() * 1e3),
        "speedup": float(spent[1] / spent[0]),
    }


def redrawn(said: Said, cost: Array) -> dict[str, object]:
    """Find thresholds on 5,000 draws of the images, with replacement, and judge them on the images drawn from."""
    drops, speedups = [], []
    everything = replies(said, "margin", [1.0], cost)
    for seed in range(DRAWS):
        rows = np.random.default_rng(seed).integers(0, len(said.y), len(said.y) // 2)
        try:
            _, outcome = settle(everything.part(rows), cost, DROP, 0.95, seed)
        except TargetError:
            continue
        found = evaluate(everything, outcome.thresholds)
        drops.append((found.lost - found.gained) / found.samples)
        speedups.append(float(cost[-1] / found.seconds))
    return {
        "draws": DRAWS,
        "refused": DRAWS - len(drops),
        "within": DRAWS - sum(drop > DROP for drop in drops),
        "median_drop": statistics.median(drops),
        "worst_drop": max(drops),
        "median_speedup": statistics.median(speedups),
        "least_speedup": min(speedups),
    }


def main() -> None:
    """Measure the cascades."""
    results: dict[str, object] = {}
    for title, names in CASCADES.items():
        files, said = answers(Path(sys.argv[1]), names)
        members = tuple(Finished(file) for file in files)
        with all_opened(members) as models:
            cost = sample_seconds([Run(models[0], "margin"), Run(models[1])], said.x)
        try:
            results[title] = {**measured(members, said, cost), "resampled": redrawn(said, cost)}
        except TargetError as refusal:
            results[title] = {"refused": str(refusal)}
        print(title, json.dumps(results[title]), flush=True)
    document = {"max_accuracy_drop": DROP, "cascades": results, "machine": machine()}
    (RESULTS / "cascade.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
