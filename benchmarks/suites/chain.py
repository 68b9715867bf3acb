"""The whole chain: as fast as it gets with at most one point lost, ours and the best put together from the peers."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from adaptkit.distillation import FeatureDistillation, LogitDistillation
from adaptkit.export.onnx import export_onnx, to_onnx
from adaptkit.loading.batches import Batches
from adaptkit.loading.data import Data
from adaptkit.metrics.file import file_accuracy
from adaptkit.pruning import DepthPruning, StructuredPruning
from adaptkit.quantization import StaticQuantization
from adaptkit.technique import Context, Technique
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings
from benchmarks.harness.data import everything, task, trained
from benchmarks.harness.files import faster, measure_files
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.peer_onnxruntime import by_onnx_runtime
from benchmarks.suites.pruners import torch_pruning

LIMIT = 0.01
EPOCHS = {"smoke": 2.0, "nightly": 1.0}
FIT = FitSettings(learning_rate=0.03, gradient_clip=5)
Chain = Callable[[], onnx.ModelProto]


def run(place: Place) -> Found:
    """Make all candidates with the same epochs; one half of the test images chooses, the other judges."""
    data, model = task(place), trained(place)
    epochs = EPOCHS[place.size] if place.recovery is None else place.recovery
    chains = {**_ours(place, model, data, epochs), **_theirs(place, model, data, epochs)}
    choosing, judging = (_every_second(data.test, start) for start in (0, 1))
    with tempfile.TemporaryDirectory() as folder:
        paths = {"original": Path(folder, "original.onnx")}
        export_onnx(model, (_example(data),), paths["original"])
        for name, chain in chains.items():
            path = Path(folder, f"{len(paths)}.onnx")
            onnx.save(chain(), path)
            paths[name] = path
        found = measure_files(paths, judging)
        for name, path in paths.items():
            found[name]["accuracy_when_chosen"] = file_accuracy(path, choosing)
    return {"chains": found, "epochs": epochs, "limit": LIMIT, "chosen": _chosen(found)}


def _ours(place: Place, model: nn.Module, data: Data, epochs: float) -> dict[str, Chain]:
    """Give adaptkit's candidates: integers alone, half of the MACs, fewer blocks."""
    soft = LogitDistillation(epochs=epochs, fit=FIT)
    layers = FeatureDistillation(epochs=epochs, weight=192, fit=FIT)
    integers = StaticQuantization()
    steps: dict[str, tuple[Technique, ...]] = {
        "adaptkit: integers, learned rounding": (StaticQuantization(rounding="learned"),),
        "adaptkit: half of the MACs, distilled, integers": (
            StructuredPruning(macs=0.5, importance="taylor"), soft, integers,
        ),
        "adaptkit: three quarters of the MACs, distilled, integers": (
            StructuredPruning(macs=0.75, importance="taylor"), soft, integers,
        ),
    }  # fmt: skip
    if not place.smoke:
        for count, name in ((1, "one block"), (2, "two blocks")):
            fewer = DepthPruning(targets=("layer1.*", "layer2.*"), blocks=count)
            steps[f"adaptkit: {name} less, distilled by layers, integers"] = (fewer, layers, integers)
    return {name: lambda chain=chain: _applied(chain, model, data, place.seed) for name, chain in steps.items()}  # type: ignore[misc]


def _applied(chain: tuple[Technique, ...], model: nn.Module, data: Data, seed: int) -> onnx.ModelProto:
    context = Context(
        example_inputs=(_example(data),), train=data.train, validation=data.validation, calibration=data.calibration,
        teacher=copy.deepcopy(model), seed=seed,
    )  # fmt: skip
    small = copy.deepcopy(model)
    for technique in chain:
        small = technique.apply(small, context)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(small, context.example_inputs, Path(folder, "model.onnx"))
        return onnx.load(Path(folder, "model.onnx"))


def _theirs(place: Place, model: nn.Module, data: Data, epochs: float) -> dict[str, Chain]:
    """Give the peers' candidates: integers alone, and Torch-Pruning, fine-tuning, integers."""
    images = everything(data.calibration)[0].numpy()

    def integers(small: nn.Module, ranges: str) -> onnx.ModelProto:
        return by_onnx_runtime(to_onnx(small, (_example(data),)), images, ranges)

    def pruned(share: float) -> onnx.ModelProto:
        small = torch_pruning(module, by_hand=True)(model, _example(data), share)  # type: ignore[arg-type]
        fit(small, data.train, epochs=epochs, settings=FIT, seed=place.seed)
        return integers(small.eval(), "MinMax")

    chains: dict[str, Chain] = {
        f"onnxruntime.quantization, {ranges}": lambda ranges=ranges: integers(copy.deepcopy(model), ranges)  # type: ignore[misc]
        for ranges in ("MinMax", "Percentile")
    }
    module = place.peers.module("torch-pruning")
    if module is not None:
        chains |= {
            f"Torch-Pruning to {100 * share:g} % of the MACs, fine-tuned, onnxruntime.quantization": (
                lambda share=share: pruned(share)  # type: ignore[misc]
            )
            for share in (0.75, 0.5)
        }
    return chains


def _example(data: Data) -> Tensor:
    return torch.zeros(1, *data.sample_shape)


def _every_second(batches: Batches, start: int) -> Batches:
    index = torch.arange(len(batches.y)) if batches.index is None else torch.as_tensor(batches.index)
    return dataclasses.replace(batches, index=index[start::2])


def _chosen(found: dict[str, Found]) -> dict[str, str | None]:
    """Name the fastest candidate of each side that loses no more than the limit on the images that choose."""
    least = found["original"]["accuracy_when_chosen"] - LIMIT
    allowed = {name: each for name, each in found.items() if each["accuracy_when_chosen"] >= least}
    allowed.pop("original")

    def fastest(names: list[str]) -> str | None:
        return max(names, key=lambda name: allowed[name]["faster"]["t1_b1"]["median"], default=None)

    ours = [name for name in allowed if name.startswith("adaptkit")]
    return {"adaptkit": fastest(ours), "peers": fastest([name for name in allowed if name not in ours])}


def table(figures: Found) -> str:
    """One row for each candidate; those that were chosen are marked."""
    rows = ["| chain | lost, points | faster, batch 1 | batch 64 | file | energy, estimate |", "|---" * 6 + "|"]
    exact = figures["chains"]["original"]["accuracy"]
    for name, found in figures["chains"].items():
        mark = "**chosen**: " if name in figures["chosen"].values() else ""
        rows.append(
            f"| {mark}{name} | {100 * (exact - found['accuracy']):.2f} | {faster(found, 't1_b1')} "
            f"| {faster(found, 't1_b64')} | {found['bytes'] / 1e3:.0f} kB | {1e3 * found['energy_mj']:.1f} µJ |"
        )
    return "\n".join([
        *rows, "",
        f"Epochs of training for every candidate that is cut: {figures['epochs']:g}. Of each side the fastest at batch "
        f"1 is chosen that loses at most {100 * figures['limit']:g} point on every second test image; points lost are "
        "those on the others. Quartiles of turns. Energy is estimated from operations and bytes (Horowitz 2014), for "
        "all files, not measured.",
    ])  # fmt: skip


def verdicts(figures: Found) -> list[Verdict]:
    """Compare the two that were chosen."""
    names = figures["chosen"]
    if None in names.values():
        return []
    ours, theirs = (figures["chains"][names[side]] for side in ("adaptkit", "peers"))
    peer, exact = names["peers"], figures["chains"]["original"]["accuracy"]
    lost = [100 * (exact - each["accuracy"]) for each in (ours, theirs)]
    speed = [each["faster"]["t1_b1"]["median"] for each in (ours, theirs)]
    size = [each["bytes"] / 1e3 for each in (ours, theirs)]
    energy = [1e3 * each["energy_mj"] for each in (ours, theirs)]
    return [
        Verdict("chain at ≤ 1 point lost: latency, batch 1", f"{speed[0]:.2f} × faster, {lost[0]:.2f} points lost",
                f"{speed[1]:.2f} × faster, {lost[1]:.2f} points lost", peer, outcome(*speed, lower_is_better=False)),
        Verdict("its bytes", f"{size[0]:.0f} kB", f"{size[1]:.0f} kB", peer, outcome(*size, lower_is_better=True)),
        Verdict("its energy, estimate", f"{energy[0]:.1f} µJ", f"{energy[1]:.1f} µJ", peer,
                outcome(*energy, lower_is_better=True)),
    ]  # fmt: skip


SUITE = Suite(
    about="The whole chain at no more than one point lost: latency, bytes, energy (an estimate)",
    run=run, table=table, verdicts=verdicts, peers=("torch-pruning",), minutes=20,
)  # fmt: skip
