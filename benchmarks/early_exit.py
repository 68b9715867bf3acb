"""Early exits against the same network whole: accuracy, and mean latency on ONNX Runtime.

    ADAPTKIT_DATA=… python benchmarks/early_exit.py lenet5_fashion alexnet_cifar resnet56
    ADAPTKIT_DATA=… python benchmarks/early_exit.py alexnet_cifar --peer       earlyon beside adaptkit

Adds to benchmarks/results/early_exit.json. The weights of LeNet and AlexNet are made by benchmarks/train.py; networks
with exits are trained here, once, and kept in $ADAPTKIT_DATA/weights/NAME_exits.training. Thresholds come from images
that nothing was trained on: those held out for validation, or, since the published weights of ResNet-56 have seen all
training images, every second test image; accuracy, shares and latency come from the (other) test images. How often the
bound holds is told by 20 draws of the images for thresholds, with replacement, each judged on all test images.
The drop that is bounded is larger than the one to be reached for LeNet and AlexNet: a bound from few images is wide.
Latency: one thread, both take turns; batch 1 as in benchmarks/cascade.py, batch 64 by the median batch.
"""

import argparse
import copy
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch
from machine import RESULTS, machine
from torch import Tensor, nn
from train import data_spec

from adaptkit.conditional.base import opened
from adaptkit.conditional.early_exit import EarlyExit, Exits
from adaptkit.conditional.exit_network import ExitNetwork
from adaptkit.conditional.members import Run, sample_seconds
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import TargetError
from adaptkit.loading.batches import as_batches
from adaptkit.loading.data import Data, load_data
from adaptkit.loading.models import load_weights
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.index import builders

RESULT = RESULTS / "early_exit.json"
DRAWS = 20


@dataclass(frozen=True)
class Case:
    """A network, its data and its exits.

    Args:
        builder: Of the zoo.
        weights: File in the folder of weights, without its ending.
        settings: Of the exits.
        data: See benchmarks/train.py.
        seen: Whether the weights have seen the images that are held out for validation.
        allowed: The drop in accuracy that draws are judged by.
    """

    builder: str
    weights: str
    settings: EarlyExit
    data: str = "cifar10"
    seen: bool = False
    allowed: float = 0.005


CASES = {
    "lenet5_fashion": Case(
        "lenet5_caffe",
        "lenet5_caffe",
        EarlyExit(
            exits=("features.2",), head_width=16, epochs=20, fit=FitSettings(learning_rate=0.05, ema=0.998),
            max_accuracy_drop=0.004, single_file=True,
        ),
        data="fashion",
        allowed=0.002,
    ),
    "alexnet_cifar": Case(
        "alexnet_cifar",
        "alexnet_cifar",
        EarlyExit(
            exits=("features.2", "features.5"), head_width=64, epochs=10,
            max_accuracy_drop=0.01,
            fit=FitSettings(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, ema=0.998, precision="bfloat16"),
        ),
        allowed=0.003,
    ),
    "resnet56": Case(
        "resnet56_cifar",
        "resnet56-cifar10-jpeg",
        EarlyExit(
            exits=("layer1.4", "layer1", "layer2.3", "layer2", "layer3.3"), head_depth=2, epochs=12,
            fit=FitSettings(learning_rate=0.03, ema=0.998, precision="bfloat16"), early_weight=0.5,
            max_accuracy_drop=0.005, quantize=StaticQuantization(),
        ),
        seen=True,
    ),
}  # fmt: skip


def tensors(source: Any) -> tuple[Tensor, Tensor]:
    """Gather the samples of a split."""
    parts = list(source)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


class Bench:
    """One case: the original, the network with exits, and the images that set thresholds and that judge.

    Args:
        name: Of the case.
        root: Folder of data and weights.
    """

    def __init__(self, name: str, root: Path) -> None:
        case = CASES[name]
        data: Data = load_data(data_spec(case.data, root), seed=0)
        self.case, self.settings = case, case.settings
        self.original = builders()[case.builder]().eval()
        load_weights(self.original, root / "weights" / f"{case.weights}.safetensors")
        self.x, self.y = tensors(data.test)
        self.even, self.odd = np.arange(0, len(self.y), 2), np.arange(1, len(self.y), 2)
        held = (self.x, self.y) if case.seen else tensors(data.validation)
        self.held = held
        self.first = (self.x[self.even], self.y[self.even]) if case.seen else held
        self.judged = self.odd if case.seen else np.arange(len(self.y))
        self.context = Context(
            example_inputs=(self.x[:1],),
            train=data.train,
            calibration=tensors(data.calibration),
            workspace=root / "weights" / f"{name}_exits.training",
            teacher=copy.deepcopy(self.original),
        )
        with torch.no_grad():
            chosen = torch.cat([self.original(part).argmax(1) for part in self.x.split(250)])
        self.original_right = (chosen == self.y).numpy()

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        """Train the exits, and say how accurate each is on the images that judge."""
        float_settings = self.settings.model_copy(update={"quantize": None})
        network = float_settings.train(copy.deepcopy(self.original), self.context)
        assert isinstance(network, ExitNetwork)
        with torch.no_grad():
            answers = [network.eval()(part) for part in self.x[self.judged].split(250)]
        y = self.y[self.judged]
        accuracies = [float((torch.cat(each).argmax(1) == y).float().mean()) for each in zip(*answers, strict=True)]
        told = {"points": network.points, "exit_accuracy": accuracies[1:], "last_accuracy": accuracies[0]}
        quantize = self.settings.quantize
        return network if quantize is None else quantize.apply(network, self.context), told

    def whole(self) -> PlainArtifact:
        """Give the network without exits, as integers where those with exits are."""
        model, quantize = copy.deepcopy(self.original), self.settings.quantize
        made = model if quantize is None else quantize.apply(model, self.context)
        return PlainArtifact(made, (self.x[:1],))

    def calibrated(self, network: nn.Module, samples: tuple[Tensor, Tensor]) -> Exits:
        """Find thresholds on samples."""
        context = Context(
            example_inputs=(self.x[:1],), validation=samples, calibration=self.context.calibration, notes=[]
        )
        made = self.settings.calibrate(network, self.original, context)
        print(*context.notes, sep="\n", flush=True)
        return made

    def right(self, model: AdaptedModel, rows: np.ndarray) -> np.ndarray:
        """Run images in batches of 250; one at a time where a batch leaves as a whole."""
        x, step = self.x.numpy()[rows], 1 if self.settings.single_file else 250
        given = np.concatenate([model(x[i : i + step]).logits for i in range(0, len(x), step)])
        return given.argmax(1) == self.y.numpy()[rows]


def measured(bench: Bench, network: nn.Module) -> dict[str, Any]:
    """Find thresholds on one part of the images, and run the files on the other."""
    made, whole = bench.calibrated(network, bench.first), bench.whole()
    with opened(made) as model, opened(whole) as plain:
        right, alone = bench.right(model, bench.judged), bench.right(plain, bench.judged)
        shares = {each.name: each.share for each in model.statistics}
        x = bench.x.numpy()[bench.judged]
        order = np.random.default_rng(0).permutation(len(x))
        spent = sample_seconds([Run(model), Run(plain)], x[order], samples=1000)
        many = None if bench.settings.single_file else batch_ratio(model, plain, x[order])
    original = bench.original_right[bench.judged]
    return {
        "points": made.points,
        "thresholds": made.thresholds,
        "bound": made.outcome.bound,
        "accuracy": float(right.mean()),
        "accuracy_original": float(original.mean()),
        "accuracy_whole": float(alone.mean()),
        "lost": int((original & ~right).sum()),
        "gained": int((right & ~original).sum()),
        "samples": len(right),
        "shares": shares,
        "mean_ms": float(spent[0] * 1e3),
        "whole_ms": float(spent[1] * 1e3),
        "speedup": {"b1": float(spent[1] / spent[0]), "b64": many},
    }


def batch_ratio(model: AdaptedModel, plain: AdaptedModel, x: np.ndarray, size: int = 64) -> float:
    """Let both run the same batches in turns; the ratio of the median times."""
    taken: list[list[float]] = [[], []]
    for start in [0] * 5 + list(range(0, len(x) - size, size)):
        for each, times in zip((model, plain), taken, strict=True):
            started = thread_time()
            each.runner(x[start : start + size])
            times.append(thread_time() - started)
    fast, slow = (statistics.median(times[5:]) for times in taken)
    return slow / fast


def peer(bench: Bench) -> dict[str, Any]:
    """Let earlyon do the same, in both of its ways to train; PyTorch is what it runs on."""
    with opened(bench.calibrated(bench.network()[0], bench.first)) as model:
        return {training: _peer(bench, model, training) for training in ("two_stage", "joint")}


def _peer(bench: Bench, model: AdaptedModel, training: str) -> dict[str, Any]:
    from peer_earlyon import Peer

    points = bench.settings.exits
    assert isinstance(points, tuple)
    assert bench.context.train is not None
    assert bench.context.calibration is not None
    trained = Peer(
        copy.deepcopy(bench.original), points, as_batches(bench.context.train), int(bench.settings.epochs), training
    )
    trained.calibrate(bench.first, bench.context.calibration, bench.case.allowed)
    classes, exits = trained.answers(bench.x[bench.judged])
    x = bench.x.numpy()[bench.judged][np.random.default_rng(0).permutation(len(bench.judged))]

    def plain(each: np.ndarray) -> int:
        bench.original(torch.from_numpy(each))
        return 0

    with torch.inference_mode():
        spent = sample_seconds([trained.run, plain, Run(model)], x, samples=1000)
    return {
        "accuracy": float((classes == bench.y.numpy()[bench.judged]).mean()),
        "shares": {f"exit {number}": float((exits == number).mean()) for number in sorted(set(exits.tolist()))},
        "mean_ms": float(spent[0] * 1e3),
        "whole_in_torch_ms": float(spent[1] * 1e3),
        "adaptkit_ms": float(spent[2] * 1e3),
    }


def redrawn(bench: Bench, network: nn.Module) -> dict[str, Any]:
    """Find thresholds on draws of the images, and judge them on all test images."""
    drops, held = [], bench.held
    for seed in range(DRAWS):
        rows = torch.from_numpy(np.random.default_rng(seed).integers(0, len(held[1]), len(bench.first[1])))
        try:
            made = bench.calibrated(network, (held[0][rows], held[1][rows]))
        except TargetError:
            continue
        with opened(made) as model:
            right = bench.right(model, np.arange(len(bench.y)))
        drops.append(float(bench.original_right.mean() - right.mean()))
        print(f"draw {seed}: a drop of {100 * drops[-1]:.2f} points", flush=True)
    return {
        "draws": DRAWS,
        "refused": DRAWS - len(drops),
        "within": DRAWS - sum(drop > bench.case.allowed for drop in drops),
        "median_drop": statistics.median(drops) if drops else None,
        "worst_drop": max(drops, default=None),
    }


def row(bench: Bench) -> dict[str, Any]:
    """Measure adaptkit's."""
    network, told = bench.network()
    print(json.dumps(told), flush=True)
    settings = json.loads(bench.settings.model_dump_json(exclude_defaults=True))
    found: dict[str, Any] = {"settings": settings, "allowed": bench.case.allowed, **told}
    try:
        found |= {"adaptkit": measured(bench, network)}
        print(json.dumps(found["adaptkit"]), flush=True)
        found |= {"resampled": redrawn(bench, network)}
    except TargetError as refusal:
        found |= {"refused": str(refusal)}
    return {**found, "machine": machine()}


def main() -> None:
    """Measure the cases named on the command line; earlier results of others stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--peer", action="store_true", help="measure earlyon, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.cases:
        bench = Bench(name, Path(os.environ["ADAPTKIT_DATA"]))
        found = {"earlyon": {**peer(bench), "machine": machine()}} if arguments.peer else row(bench)
        results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        results[name] = {**(results.get(name, {}) if arguments.peer else {}), **found}
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
