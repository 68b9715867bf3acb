"""Early exits beside smaller static networks that were trained as long, and what was measured beside earlyon."""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import ExitStack

import numpy as np
from torch import Tensor, nn

from adaptkit.conditional.base import Artifact, opened
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.members import Run, sample_seconds
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.distillation import LogitDistillation
from adaptkit.errors import TargetError
from adaptkit.pruning import StructuredPruning
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from benchmarks.harness.data import everything, task, trained
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.machine import RESULTS

EPOCHS = {"smoke": 3.0, "nightly": 2.0}
SHARES = {"smoke": (0.5,), "nightly": (0.8, 0.6, 0.45, 0.3)}
DROP = {"smoke": 0.15, "nightly": 0.01}
EXITS = {"smoke": ("stage1",), "nightly": ("layer1", "layer2")}
SAMPLES = {"smoke": 100, "nightly": 1000}
FIT = FitSettings(learning_rate=0.03, gradient_clip=5)


def run(place: Place) -> Found:
    """Train the network with exits and the smaller ones for as many epochs, and send them the same images in turns.

    Thresholds come from every second test image, since published weights have seen all training images; the other half
    judges everybody.
    """
    data, model = task(place), trained(place)
    epochs = EPOCHS[place.size] if place.recovery is None else place.recovery
    x, y = everything(data.test)
    example = torch.zeros(1, *data.sample_shape)
    context = Context(
        example_inputs=(example,), train=data.train, validation=(x[::2], y[::2]),
        calibration=everything(data.calibration), teacher=copy.deepcopy(model), seed=place.seed, notes=[],
    )  # fmt: skip
    made: dict[str, Artifact] = {"the network whole": PlainArtifact(copy.deepcopy(model), (example,))}
    refused = ""
    try:
        made["adaptkit, early exits"] = _with_exits(place, model, context, epochs)
    except TargetError as error:
        refused = str(error)
    for share in SHARES[place.size]:
        small = _static(model, context, share, epochs)
        made[f"static, {100 * share:g} % of the MACs"] = PlainArtifact(small, (example,))
    found = _measured(place, made, x[1::2], y[1::2])
    return {"ways": found, "epochs": epochs, "drop": DROP[place.size], "refused": refused, "earlyon": earlyon()}


def _with_exits(place: Place, model: nn.Module, context: Context, epochs: float) -> Artifact:
    settings = EarlyExit(
        exits=EXITS[place.size], epochs=epochs, fit=FIT, max_accuracy_drop=DROP[place.size], head_depth=2
    )
    network = settings.train(copy.deepcopy(model), context)
    return settings.calibrate(network, model, context)


def _static(model: nn.Module, context: Context, share: float, epochs: float) -> nn.Module:
    small = StructuredPruning(macs=share, importance="taylor").apply(copy.deepcopy(model), context)
    return LogitDistillation(epochs=epochs, fit=FIT).apply(small, dataclasses.replace(context))


def _measured(place: Place, made: dict[str, Artifact], x: Tensor, y: Tensor) -> dict[str, Found]:
    images = x.numpy()[np.random.default_rng(place.seed).permutation(len(x))]
    with ExitStack() as stack:
        models = {name: stack.enter_context(opened(artifact)) for name, artifact in made.items()}
        accuracies = {name: _accuracy(model, x.numpy(), y.numpy()) for name, model in models.items()}
        shares = {name: {each.name: each.share for each in model.statistics} for name, model in models.items()}
        spent = sample_seconds([Run(model) for model in models.values()], images, samples=SAMPLES[place.size])
    return {
        name: {"accuracy": accuracies[name], "mean_ms": 1e3 * float(seconds), "shares": shares[name]}
        for name, seconds in zip(models, spent, strict=True)
    }


def _accuracy(model: AdaptedModel, x: np.ndarray, y: np.ndarray) -> float:
    given = np.concatenate([model(x[i : i + 250]).logits for i in range(0, len(x), 250)])
    return float((given.argmax(1) == y).mean())


def earlyon() -> dict[str, Found]:
    """Read what `benchmarks/early_exit.py --peer` has measured, network by network."""
    path = RESULTS / "early_exit.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    return {
        name: {
            "adaptkit": found["adaptkit"]["accuracy"],
            "commit": found["earlyon"]["machine"]["commit"],
            **{way: each for way, each in found["earlyon"].items() if way != "machine"},
        }
        for name, found in results.items()
        if "earlyon" in found
    }


def table(figures: Found) -> str:
    """One row for each network."""
    rows = ["| what | top-1 | mean time, batch 1 | shares that leave |", "|---|---|---|---|"]
    for name, found in figures["ways"].items():
        shares = ", ".join(f"{way} {100 * share:.0f} %" for way, share in found["shares"].items())
        shares = shares if len(found["shares"]) > 1 else "–"
        rows.append(f"| {name} | {100 * found['accuracy']:.2f} % | {found['mean_ms']:.3f} ms | {shares} |")
    if figures["refused"]:
        rows.append(f"| adaptkit, early exits | refused: {figures['refused']} | – | – |")
    return "\n".join([
        *rows, "",
        f"{figures['epochs']:g} epochs for everybody but the whole network: jointly with the exits, or with "
        f"distillation after the cut. Thresholds may lose {100 * figures['drop']:g} points, bounded on every second "
        "test image; top-1 and time are those of the others, in turns, processor time. The static network is chosen by "
        "its top-1 on these, which favours it. Figures beside earlyon are those of "
        "`benchmarks/early_exit.py --peer`, see docs/measured.md.",
    ])  # fmt: skip


def verdicts(figures: Found) -> list[Verdict]:
    """Compare with the fastest static network that is as accurate, and with earlyon."""
    return [*_beside_static(figures["ways"]), *_beside_earlyon(figures["earlyon"])]


def _beside_static(ways: dict[str, Found]) -> list[Verdict]:
    ours = ways.get("adaptkit, early exits")
    if ours is None:
        return []
    as_good = {
        name: found
        for name, found in ways.items()
        if not name.startswith("adaptkit") and found["accuracy"] >= ours["accuracy"] - 0.001
    }
    if not as_good:
        return []
    name = min(as_good, key=lambda each: as_good[each]["mean_ms"])
    pair = (ours["mean_ms"], as_good[name]["mean_ms"])
    return [Verdict(
        "mean time of exits, to the fastest static network of that accuracy", f"{pair[0]:.3f} ms", f"{pair[1]:.3f} ms",
        name, outcome(*pair, lower_is_better=True),
    )]  # fmt: skip


def _beside_earlyon(networks: dict[str, Found]) -> list[Verdict]:
    found = []
    for network, ways in networks.items():
        theirs = {name: way for name, way in ways.items() if isinstance(way, dict)}
        name = min(theirs, key=lambda each: theirs[each]["mean_ms"])
        pair = (theirs[name]["adaptkit_ms"], theirs[name]["mean_ms"])
        found.append(Verdict(
            f"{network}: mean time", f"{pair[0]:.2f} ms at {100 * ways['adaptkit']:.2f} %",
            f"{pair[1]:.2f} ms at {100 * theirs[name]['accuracy']:.2f} %, in PyTorch",
            f"earlyon, {name.replace('_', ' ')}", outcome(*pair, lower_is_better=True),
        ))  # fmt: skip
    return found


SUITE = Suite(
    about="Early exits beside smaller static networks and earlyon: mean time at equal accuracy",
    run=run, table=table, verdicts=verdicts, peers=(), minutes=45,
)  # fmt: skip
