"""Early exits beside smaller static networks that were trained as long, and what was measured beside earlyon."""

from __future__ import annotations

import copy
import dataclasses
import math
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.conditional.base import Artifact, opened
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.members import Run, sample_seconds
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.distillation import LogitDistillation
from adaptkit.errors import TargetError
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.pruning import StructuredPruning
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from benchmarks.harness.data import everything, task, trained
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.peer_earlyon import Peer

EPOCHS = {"smoke": 3.0, "nightly": 2.0}
SHARES = {"smoke": (0.5,), "nightly": (0.8, 0.6, 0.45, 0.3)}
DROP = {"smoke": 0.15, "nightly": 0.01}
EXITS = {"smoke": ("stage1",), "nightly": ("layer1", "layer2.0", "layer2", "layer3.0")}
SAMPLES = {"smoke": 100, "nightly": 1000}
FIT = FitSettings(learning_rate=0.03, gradient_clip=5, ema=0.998)
OURS = "adaptkit, early exits"


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
        made[OURS] = _with_exits(place, model, context, epochs)
    except TargetError as error:
        refused = str(error)
    for share in SHARES[place.size]:
        small = _static(model, context, share, epochs)
        made[f"static, {100 * share:g} % of the MACs"] = PlainArtifact(small, (example,))
    found = _measured(place, made, _earlyon(place, model, context, epochs), x[1::2], y[1::2])
    return {"ways": found, "epochs": epochs, "drop": DROP[place.size], "refused": refused}


def _with_exits(place: Place, model: nn.Module, context: Context, epochs: float) -> Artifact:
    settings = EarlyExit(
        exits=EXITS[place.size],
        epochs=epochs,
        fit=FIT,
        max_accuracy_drop=DROP[place.size],
        head_depth=2,
        early_weight=0.5,
    )
    network = settings.train(copy.deepcopy(model), context)
    return settings.calibrate(network, model, context)


def _earlyon(place: Place, model: nn.Module, context: Context, epochs: float) -> dict[str, Peer]:
    """Let earlyon put exits at the same points, in its two ways to train; it takes whole epochs only."""
    if place.peers.module("earlyon") is None:
        return {}
    assert context.train is not None
    assert context.validation is not None
    assert context.calibration is not None
    found = {}
    for training in ("joint", "two_stage"):
        train = as_batches(context.train)
        peer = Peer(copy.deepcopy(model), EXITS[place.size], train, math.ceil(epochs), training)
        peer.calibrate(_pair(context.validation), _pair(context.calibration), DROP[place.size])
        found[f"earlyon, {training.replace('_', ' ')} training, in PyTorch"] = peer
    return found


def _pair(source: BatchSource) -> tuple[Tensor, Tensor]:
    """Give a split that is a pair of tensors already."""
    assert isinstance(source, tuple)
    return source


def _static(model: nn.Module, context: Context, share: float, epochs: float) -> nn.Module:
    small = StructuredPruning(macs=share, importance="taylor").apply(copy.deepcopy(model), context)
    return LogitDistillation(epochs=epochs, fit=FIT).apply(small, dataclasses.replace(context))


def _measured(
    place: Place, made: dict[str, Artifact], peers: dict[str, Peer], x: Tensor, y: Tensor
) -> dict[str, Found]:
    images = x.numpy()[np.random.default_rng(place.seed).permutation(len(x))]
    with ExitStack() as stack:
        models = {name: stack.enter_context(opened(artifact)) for name, artifact in made.items()}
        accuracies = {name: _accuracy(model, x.numpy(), y.numpy()) for name, model in models.items()}
        shares = {name: {each.name: each.share for each in model.statistics} for name, model in models.items()}
        runs = {name: Run(model) for name, model in models.items()} | {name: peer.run for name, peer in peers.items()}
        with torch.inference_mode():
            spent = sample_seconds(list(runs.values()), images, samples=SAMPLES[place.size])
            for name, peer in peers.items():
                classes, taken = peer.answers(x)
                accuracies[name] = float((classes == y.numpy()).mean())
                shares[name] = {f"exit {each}": float((taken == each).mean()) for each in sorted(set(taken.tolist()))}
    return {
        name: {"accuracy": accuracies[name], "mean_ms": 1e3 * float(seconds), "shares": shares[name]}
        for name, seconds in zip(runs, spent, strict=True)
    }


def _accuracy(model: AdaptedModel, x: np.ndarray, y: np.ndarray) -> float:
    given = np.concatenate([model(x[i : i + 250]).logits for i in range(0, len(x), 250)])
    return float((given.argmax(1) == y).mean())


def table(figures: Found) -> str:
    """One row for each network."""
    rows = ["| what | top-1 | mean time, batch 1 | shares that leave |", "|---|---|---|---|"]
    for name, found in figures["ways"].items():
        shares = ", ".join(f"{way} {100 * share:.0f} %" for way, share in found["shares"].items())
        shares = shares if len(found["shares"]) > 1 else "–"
        rows.append(f"| {name} | {100 * found['accuracy']:.2f} % | {found['mean_ms']:.3f} ms | {shares} |")
    if figures["refused"]:
        rows.append(f"| {OURS} | refused: {figures['refused']} | – | – |")
    return "\n".join([
        *rows, "",
        f"{figures['epochs']:g} epochs for everybody but the whole network: jointly with the exits, or with "
        f"distillation after the cut. Thresholds may lose {100 * figures['drop']:g} points, bounded on every second "
        "test image; top-1 and time are those of the others, in turns, processor time. The static network is chosen by "
        "its top-1 on these, which favours it. earlyon's exit −1 is the end.",
    ])  # fmt: skip


def verdicts(figures: Found) -> list[Verdict]:
    """Compare with the fastest static network that is as accurate, and with the fastest of earlyon's."""
    ways = figures["ways"]
    if OURS not in ways:
        return []
    return [*_beside(ways, "static"), *_beside(ways, "earlyon")]


def _beside(ways: dict[str, Found], kind: str) -> list[Verdict]:
    """Compare with the fastest of a kind; a static network, or the whole one, must be as accurate."""
    ours = ways[OURS]
    others = {
        name: found
        for name, found in ways.items()
        if name != OURS and name.startswith("earlyon") == (kind == "earlyon")
    }
    if kind == "static":
        others = {name: found for name, found in others.items() if found["accuracy"] >= ours["accuracy"] - 0.001}
    if not others:
        return []
    name = min(others, key=lambda each: others[each]["mean_ms"])
    times = [found["mean_ms"] for found in (ours, others[name])]
    told, other = (f"{found['mean_ms']:.3f} ms at {100 * found['accuracy']:.2f} %" for found in (ours, others[name]))
    what = {"static": "exits, to the fastest static network as accurate", "earlyon": "exits, to earlyon's"}[kind]
    return [Verdict(f"{what}: mean time", told, other, name, outcome(*times, lower_is_better=True))]


SUITE = Suite(
    about="Early exits beside smaller static networks and earlyon: mean time at equal accuracy",
    run=run, table=table, verdicts=verdicts, peers=("earlyon",), minutes=40,
)  # fmt: skip
