"""How long a whole model takes to factorize: `factorize.tucker` beside tensorly's `partial_tucker`, on ResNet-50.

The sixteen 3 × 3 convolutions of torchvision's ResNet-50 go to half of their channels on both sides. Three ways take
turns, on one thread, each on a fresh copy of the same random weights:

- adaptkit: `TuckerFactorization(rank=0.5)` on the model, everything included but the timing of layers on ONNX Runtime.
- tensorly: a loop of `partial_tucker` over the weights, with its own settings; no model is built from the factors.
- tensorly_as_close: the same with a tolerance of 1e-3, where its error is as close to the least one as ours.

Random weights are the hardest case: their singular values fall slowly, and so does the error of the iteration.

Run: `python benchmarks/factorization.py`; the result goes to benchmarks/results/factorization.json. Ratios are taken
within each turn, so that other work on the machine hits all sides alike, and on the time that the process itself took.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable

import tensorly
import torch
import torchvision
from machine import RESULTS, machine
from tensorly.decomposition import partial_tucker
from torch import Tensor, nn

from adaptkit.factorization import TuckerFactorization
from adaptkit.factorization.schemes import Tucker2
from adaptkit.technique import Context

SHARE = 0.5
TURNS = 3
RESULT = RESULTS / "factorization.json"

Decompositions = dict[str, list[Tensor]]


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    weights = {
        name: module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }
    ways: dict[str, Callable[[], Decompositions]] = {
        "adaptkit": lambda: ours(model, weights),
        "tensorly": lambda: theirs(weights, tolerance=1e-4),
        "tensorly_as_close": lambda: theirs(weights, tolerance=1e-3),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, float] = {}
    for turn in range(TURNS):
        for name, way in ways.items():
            started = time.process_time()
            found = way()
            seconds[name].append(time.process_time() - started)
            errors[name] = mean_error(weights, found)
            sys.stderr.write(f"turn {turn + 1} of {TURNS}: {name} {seconds[name][-1]:.2f} s\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(summary(seconds, errors, len(weights)), indent=1) + "\n")
    sys.stdout.write(RESULT.read_text())


def ours(model: nn.Module, weights: dict[str, Tensor]) -> Decompositions:
    """Factorize a copy of the model and read the factors off it."""
    technique = TuckerFactorization(rank=SHARE, targets=tuple(weights), undo_slower=False)
    context = Context(example_inputs=(torch.zeros(1, 3, 64, 64),))
    factorized = technique.apply(copy.deepcopy(model), context)
    return {name: [part.weight.detach() for part in factorized.get_submodule(name)] for name in weights}


def theirs(weights: dict[str, Tensor], tolerance: float) -> Decompositions:
    """Factorize the weights alone."""
    found: Decompositions = {}
    with tensorly.backend_context("pytorch"):
        for name, weight in weights.items():
            ranks = [round(SHARE * channels) for channels in weight.shape[:2]]
            (core, (out, inputs)), _ = partial_tucker(weight, rank=ranks, modes=[0, 1], tol=tolerance)
            found[name] = [inputs.T[:, :, None, None], core, out[:, :, None, None]]
    return found


def mean_error(weights: dict[str, Tensor], found: Decompositions) -> float:
    """Return the mean over layers of ‖W − W'‖ / ‖W‖."""
    return statistics.mean(
        float((Tucker2().compose(found[name]) - weight).norm() / weight.norm()) for name, weight in weights.items()
    )


def summary(seconds: dict[str, list[float]], errors: dict[str, float], layers: int) -> dict[str, object]:
    """Reduce the turns to medians and ranges."""
    ratios = {
        name: [other / own for other, own in zip(seconds[name], seconds["adaptkit"], strict=True)]
        for name in seconds
        if name != "adaptkit"
    }
    return {
        "what": "Tucker-2 at half of the channels of the 3 × 3 convolutions of torchvision resnet50, random weights",
        "layers": layers,
        "turns": TURNS,
        "threads": 1,
        "clock": "CPU time of the process",
        "median_seconds": {name: round(statistics.median(own), 2) for name, own in seconds.items()},
        "times_faster": {name: round(statistics.median(own), 2) for name, own in ratios.items()},
        "times_faster_range": {name: [round(min(own), 2), round(max(own), 2)] for name, own in ratios.items()},
        "mean_relative_error": {name: round(error, 5) for name, error in errors.items()},
        "tensorly_version": tensorly.__version__,
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
