"""Low-rank factorization at equal ranks: error of the weights, time, accuracy and latency of the file."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.export.onnx import export_onnx
from adaptkit.factorization import CpFactorization, TuckerFactorization
from adaptkit.metrics.file import file_accuracy
from adaptkit.profiling.latency import compare
from adaptkit.profiling.parameters import count_parameters
from adaptkit.specs import ProfileSpec
from adaptkit.surgery import replace_module
from adaptkit.technique import Context
from benchmarks.harness.data import task, trained
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.harness.turns import ratio, turns

SHARE = 0.5
CP_RANK = 24
_AS_CLOSE = 1.05
ROUNDS = {"smoke": 1, "nightly": 3}
Way = Callable[[], nn.Module]


def run(place: Place) -> Found:
    """Take the same convolutions of the same network apart in every way, in turns, and measure the files."""
    torch.manual_seed(place.seed)
    model, data = trained(place), task(place)
    example = torch.zeros(1, *data.sample_shape)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.in_channels >= 16
    }
    ways = {**_ours(model, tuple(layers), example), **_peers(place, model, layers)}
    made: dict[str, nn.Module] = {}
    times = turns({name: _keeping(made, name, way) for name, way in ways.items()}, ROUNDS[place.size], warm_up=0)
    found = {name: {
        "parameters": count_parameters(each), "error": _error(each, layers),
        "seconds": float(np.median(times[name])), "slower": ratio(times, name, f"{name.split(',')[0]}, adaptkit"),
    } for name, each in made.items()}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        _measure_files({"original": model, **made}, example, data.test, Path(folder), found)
    return {"ways": found, "layers": len(layers), "parameters": count_parameters(model)}


def _ours(model: nn.Module, targets: tuple[str, ...], example: Tensor) -> dict[str, Way]:
    def apply(technique: TuckerFactorization | CpFactorization) -> nn.Module:
        return technique.apply(copy.deepcopy(model), Context(example_inputs=(example,)))

    shared: dict[str, Any] = {"targets": targets, "undo_slower": False}
    return {
        "Tucker, adaptkit": lambda: apply(TuckerFactorization(rank=SHARE, round_to=1, **shared)),
        "CP, adaptkit": lambda: apply(CpFactorization(rank=CP_RANK, kernel="separable", **shared)),
    }


def _peers(place: Place, model: nn.Module, layers: Mapping[str, nn.Conv2d]) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    tltorch = place.peers.module("tensorly-torch")
    if tltorch is not None:
        ways["Tucker, tensorly-torch"] = lambda: _tltorch(tltorch, model, layers, "tucker")
        ways["CP, tensorly-torch"] = lambda: _tltorch(tltorch, model, layers, "cp")
    fasterai = place.peers.module("fasterai", ".misc.conv_decomposer")
    if fasterai is not None:
        ways["Tucker, fasterai"] = lambda: _fasterai(fasterai, model, layers, "tucker", SHARE)
        ways["CP, fasterai"] = lambda: _fasterai(fasterai, model, layers, "cp", None)
    return ways


def _tltorch(module: ModuleType, model: nn.Module, layers: Mapping[str, nn.Conv2d], kind: str) -> nn.Module:
    model = copy.deepcopy(model)
    for name, layer in layers.items():
        half = tuple(round(SHARE * channels) for channels in layer.weight.shape[:2])
        rank = (*half, *layer.kernel_size) if kind == "tucker" else CP_RANK
        factorized = module.FactorizedConv.from_conv(layer, rank=rank, factorization=kind, implementation="factorized")
        replace_module(model, name, factorized)
    return model


def _fasterai(
    module: ModuleType, model: nn.Module, layers: Mapping[str, nn.Conv2d], kind: str, share: float | None
) -> nn.Module:
    """Its rank is a share of the channels; for CP, the share that comes to our rank, layer by layer."""
    for name, layer in layers.items():
        kept = share or CP_RANK / min(layer.weight.shape[:2])
        removed = max(0.0, 1 - kept - 1e-9)
        model = module.Conv_Decomposer().decompose(model, removed, kind, layers=[name])
    return model


def _keeping(made: dict[str, nn.Module], name: str, way: Way) -> Callable[[], None]:
    def keep() -> None:
        made[name] = way().eval()

    return keep


def _error(model: nn.Module, layers: Mapping[str, nn.Conv2d]) -> float:
    """Give the mean over layers of ‖W − W'‖ / ‖W‖, where W' is what the new layer answers to unit impulses."""
    errors = []
    for name, layer in layers.items():
        inside = layer.in_channels
        impulses = torch.zeros(inside, inside, 5, 5)
        impulses[torch.arange(inside), torch.arange(inside), 2, 2] = 1
        with torch.no_grad():
            exact, given = layer(impulses), model.get_submodule(name)(impulses)
        errors.append(float((exact - given).norm() / exact.norm()))
    return float(np.mean(errors))


def _measure_files(models: Mapping[str, nn.Module], example: Tensor, test: Any, folder: Path, found: Found) -> None:
    paths: dict[str, Path] = {}
    for name, model in models.items():
        path = folder / f"{len(paths)}.onnx"
        try:
            export_onnx(model, (example,), path)
        except Exception as error:
            found[name]["no_file"] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        paths[name] = path
    timed = compare(list(paths.values()), ProfileSpec(batch_sizes=(1, 64)))
    for (name, path), figures in zip(paths.items(), timed, strict=True):
        entry = found.setdefault(name, {})
        entry |= {key: each.model_dump() for key, each in figures.speedup.items()}
        entry["accuracy"] = file_accuracy(path, test)


def table(figures: Found) -> str:
    """One row for each way."""
    rows = ["| decomposition | parameters | error of the weights | time | faster, batch 1 | batch 64 | top-1 |"]
    rows.append("|---" * 7 + "|")
    for name, found in sorted(figures["ways"].items()):
        seconds = f"{found['seconds']:.2f} s" if "seconds" in found else "–"
        error = f"{found['error']:.4f}" if "error" in found else "–"
        file = f"no file: {found['no_file']} | – | –" if "no_file" in found else _file(found)
        rows.append(f"| {name} | {found.get('parameters', figures['parameters']):,} | {error} | {seconds} | {file} |")
    return "\n".join([
        *rows,
        "",
        f"The {figures['layers']} convolutions of 3 × 3 of one trained network at equal ranks: half of the channels on "
        f"both sides (Tucker), {CP_RANK} (CP); relative error, mean over layers; processor time, median; latency of "
        "the ONNX file against that of the original, in turns; accuracy without any training afterwards. fasterai's CP "
        "cannot have a rank above the smaller number of channels.",
    ])  # fmt: skip


def _file(found: Found) -> str:
    one, many = found["t1_b1"], found["t1_b64"]
    return f"{one['median']:.2f} × | {many['median']:.2f} × | {100 * found['accuracy']:.2f} %"


def verdicts(figures: Found) -> list[Verdict]:
    """Compare error, time and latency with the best peer; the last two with those whose error is about as low."""
    measures: dict[str, tuple[str, Callable[[Found], float], str]] = {
        "error": ("relative error of the weights", lambda one: float(one["error"]), "{:.4f}"),
        "seconds": ("time to factorize", lambda one: float(one["seconds"]), "{:.2f} s"),
        "t1_b1": ("latency of the file, to the original", lambda one: 1 / float(one["t1_b1"]["median"]), "{:.2f} ×"),
    }
    found = (_verdict(figures, kind, key, *each) for kind in ("Tucker", "CP") for key, each in measures.items())
    return [verdict for verdict in found if verdict is not None]


def _verdict(
    figures: Found, kind: str, key: str, what: str, value: Callable[[Found], float], form: str
) -> Verdict | None:
    most = _AS_CLOSE * figures["ways"][f"{kind}, adaptkit"]["error"]
    values = {
        name.split(", ")[1]: value(found)
        for name, found in figures["ways"].items()
        if name.startswith(f"{kind}, ") and key in found and found["error"] <= most
    }
    ours = values.pop("adaptkit")
    if not values:
        return None
    peer = min(values, key=lambda each: values[each])
    better = outcome(ours, values[peer], lower_is_better=True)
    return Verdict(f"{kind}: {what}", form.format(ours), form.format(values[peer]), peer, better)


SUITE = Suite(
    about="Factorization of a trained network at equal ranks: error, time, latency of the file",
    run=run, table=table, verdicts=verdicts, peers=("tensorly-torch", "fasterai"), minutes=5,
)  # fmt: skip
