"""Structured pruning to the same share of multiply-accumulates, with the same recovery."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptkit.export.onnx import export_onnx
from adaptkit.loading.data import Data
from adaptkit.metrics.task import accuracy
from adaptkit.profiling.macs import count_macs
from adaptkit.profiling.parameters import count_parameters
from adaptkit.pruning import StructuredPruning
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings
from benchmarks.harness.data import task, trained
from benchmarks.harness.files import faster, measure_files
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.harness.turns import turns
from benchmarks.machine import RESULTS
from benchmarks.suites.pruners import FINE, ROUND_TO, Pruner, layer_by_layer, torch_pruning

SHARE = 0.5
LATENCY = 0.62
BLOCK = 16  # channels that ONNX Runtime's kernels take at once on processors with AVX-512
EPOCHS = {"smoke": 2.0, "nightly": 0.5}
FIT = FitSettings(learning_rate=0.03, gradient_clip=5)


def run(place: Place) -> Found:
    """Cut the same network in every way, train each for as long, and measure the files in turns."""
    data, model = task(place), trained(place)
    example = torch.zeros(1, *data.sample_shape)
    epochs = EPOCHS[place.size] if place.recovery is None else place.recovery
    found: dict[str, Found] = {"original": {"macs": count_macs(model, (example,)).total}}
    with tempfile.TemporaryDirectory() as folder:
        paths = {"original": Path(folder, "original.onnx")}
        export_onnx(model, (example,), paths["original"])
        for name, pruner in _pruners(place, data).items():
            path = Path(folder, f"{len(paths)}.onnx")
            found[name] = _one(pruner, model, example, data, epochs, path, place.seed)
            if path.is_file():
                paths[name] = path
        for name, figures in measure_files(paths, data.test).items():
            found[name] |= figures
    return {"ways": found, "epochs": epochs, "share": SHARE, "coverage": coverage()}


def _pruners(place: Place, data: Data) -> dict[str, Pruner]:
    found: dict[str, Pruner] = {
        "adaptkit, global": _ours(data, lambda share: StructuredPruning(macs=share)),
        "adaptkit, sensitivity": _ours(data, lambda share: _by_sensitivity(macs=share)),
        "adaptkit, sensitivity, steps of 8": _ours(
            data, lambda share: StructuredPruning(macs=share, ranking="sensitivity", round_to=ROUND_TO)
        ),
        "adaptkit, sensitivity, a target in time": _ours(data, lambda _: _by_sensitivity(latency=LATENCY)),
    }
    found["NNI-style one-shot, L1 by layer"] = layer_by_layer
    module = place.peers.module("torch-pruning")
    if module is not None:
        found["Torch-Pruning, no exceptions"] = torch_pruning(module, by_hand=False)
        found["Torch-Pruning, exceptions by hand"] = torch_pruning(module, by_hand=True)
    return found


def _by_sensitivity(**target: float) -> StructuredPruning:
    return StructuredPruning(ranking="sensitivity", round_to=BLOCK, **target)


def _ours(data: Data, technique: Callable[[float], StructuredPruning]) -> Pruner:
    def prune(model: nn.Module, example: Tensor, share: float) -> nn.Module:
        context = Context(example_inputs=(example,), calibration=data.calibration)
        return technique(share).apply(copy.deepcopy(model), context)

    return prune


def _one(pruner: Pruner, model: nn.Module, example: Tensor, data: Data, epochs: float, path: Path, seed: int) -> Found:
    """Cut, train and export; what fails is written down."""
    made: list[nn.Module] = []
    try:
        seconds = turns({"cut": lambda: made.append(pruner(model, example, SHARE))}, rounds=1, warm_up=0)["cut"][0]
        small = made[-1]
        before = accuracy(small.eval(), data.test)
        fit(small, data.train, epochs=epochs, settings=FIT, seed=seed)
        export_onnx(small, (example,), path)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
    return {
        "seconds": seconds,
        "macs": count_macs(small, (example,)).total,
        "parameters": count_parameters(small),
        "accuracy_before": before,
    }


def coverage() -> Found | None:
    """Count what benchmarks/coverage.py has found on torchvision's classification models; None where it has not run."""
    path = RESULTS / "coverage.json"
    if not path.is_file():
        return None
    models = json.loads(path.read_text())["models"]
    both = [cells["peer"] for cells in models.values() if cells.get("peer", {}).get("ok")]
    handled = [cell for cell in both if cell["torch_pruning"]["ok"]]
    return {
        "models": len(both),
        "torch_pruning": len(handled),
        "seconds": {
            "adaptkit": sum(cell["seconds"] for cell in handled),
            "torch_pruning": sum(cell["torch_pruning"]["seconds"] for cell in handled),
        },
    }


def table(figures: Found) -> str:
    """One row for each way."""
    rows = [
        "| what | MACs left | top-1 before recovery | after | faster, batch 1 | batch 64 | cut in |",
        "|---" * 7 + "|",
    ]
    whole = figures["ways"]["original"]["macs"]
    for name, found in figures["ways"].items():
        if "failed" in found:
            rows.append(f"| {name} | fails: {found['failed']} | | | | | |")
            continue
        before = f"{100 * found['accuracy_before']:.2f} %" if "accuracy_before" in found else "–"
        cut = f"{found['seconds']:.1f} s" if "seconds" in found else "–"
        rows.append(
            f"| {name} | {100 * found['macs'] / whole:.1f} % | {before} | {100 * found['accuracy']:.2f} % "
            f"| {faster(found, 't1_b1')} | {faster(found, 't1_b64')} | {cut} |"
        )
    return "\n".join([
        *rows,
        "",
        f"To {100 * figures['share']:g} % of the multiply-accumulates, or to {100 * LATENCY:g} % of the time that the "
        f"layers take; widths in steps of {ROUND_TO}, by sensitivity of {BLOCK}, of adaptkit's in narrow layers of a "
        f"quarter, of Torch-Pruning's of {FINE}; then "
        f"{figures['epochs']:g} epochs of the same training for everybody, without a teacher; accuracy of the ONNX "
        "file on all test images; latency against the original in turns, quartiles; processor time of the cut, with "
        "the search for the ratio where the peer has no target in MACs. Analysis time and coverage in the first table "
        "are those of `benchmarks/coverage.py --columns peer`.",
    ])  # fmt: skip


def verdicts(figures: Found) -> list[Verdict]:
    """Compare ours with the best peer that comes to as few multiply-accumulates."""
    most = 1.05 * figures["share"] * figures["ways"]["original"]["macs"]
    ways = {name: found for name, found in figures["ways"].items() if "accuracy" in found and found["macs"] <= most}
    ours = {name: found for name, found in ways.items() if name.startswith("adaptkit")}
    theirs = {name: found for name, found in ways.items() if name not in ours}
    compared = _after_recovery(figures, ours, theirs) if ours and theirs else []
    return [*compared, *_coverage(figures["coverage"])]


def _after_recovery(figures: Found, ours: dict[str, Found], theirs: dict[str, Found]) -> list[Verdict]:
    """The most accurate of both sides; then the fastest peer, and the fastest of ours that is no less accurate."""
    peer, fast = (max(theirs, key=key) for key in (lambda name: theirs[name]["accuracy"], lambda n: _speed(theirs[n])))
    best = max(ours.values(), key=lambda found: float(found["accuracy"]))
    as_good = [found for found in ours.values() if found["accuracy"] >= theirs[fast]["accuracy"]] or [best]
    fastest = max(as_good, key=_speed)
    top = [100 * found["accuracy"] for found in (best, theirs[peer])]
    speed = [_speed(found) for found in (fastest, theirs[fast])]
    return [
        Verdict(
            f"top-1 at {100 * figures['share']:g} % of the MACs after {figures['epochs']:g} epochs",
            f"{top[0]:.2f} %", f"{top[1]:.2f} %", peer, outcome(*top, lower_is_better=False, within=0.002),
        ),
        Verdict(
            "latency, batch 1, to the original, of the fastest as accurate as the fastest peer",
            f"{speed[0]:.2f} × faster, {100 * fastest['accuracy']:.2f} %",
            f"{speed[1]:.2f} × faster, {100 * theirs[fast]['accuracy']:.2f} %", fast,
            outcome(*speed, lower_is_better=False),
        ),
    ]  # fmt: skip


def _speed(found: Found) -> float:
    return float(found["faster"]["t1_b1"]["median"])


def _coverage(found: Found | None) -> list[Verdict]:
    if found is None:
        return []
    seconds, peer = found["seconds"], "Torch-Pruning"
    return [
        Verdict(
            "torchvision's classification models cut without exceptions", f"{found['models']} of {found['models']}",
            f"{found['torch_pruning']}", peer, outcome(found["models"], found["torch_pruning"], lower_is_better=False),
        ),
        Verdict(
            "analysis and cut of those that both handle", f"{seconds['adaptkit']:.0f} s",
            f"{seconds['torch_pruning']:.0f} s", peer,
            outcome(seconds["adaptkit"], seconds["torch_pruning"], lower_is_better=True),
        ),
    ]  # fmt: skip


SUITE = Suite(
    about="Structured pruning at equal MACs and recovery: accuracy, latency, time, coverage",
    run=run, table=table, verdicts=verdicts, peers=("torch-pruning",), minutes=12,
)  # fmt: skip
