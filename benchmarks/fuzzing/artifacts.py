"""Small artifacts of every kind, written by hand so that all of their files are known and short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
import torch
from torch import nn

from adaptkit.export.metadata import Metadata, Normalize
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.saved import save
from adaptkit.recipe import dump_recipe, parse_recipe
from adaptkit.report.schema import Certificate, Figures, Percentiles, Report, Step
from adaptkit.run_dir import LOCK, REPORT, RunFolder
from adaptkit.runtime.activation_cache import ActivationManifest, CachedStage, Memory
from adaptkit.runtime.cascade import CascadeManifest, CascadeMember
from adaptkit.runtime.early_exit import ExitsManifest, Stage, Value
from adaptkit.runtime.folder import open_runner
from adaptkit.runtime.frame_manifest import FramePlan, FramesManifest, Segment, Tolerance
from adaptkit.runtime.learned import Entries
from adaptkit.runtime.manifest import describe
from adaptkit.runtime.result import Runner
from adaptkit.runtime.result_cache import AnswerForm, CacheManifest, ResultCache
from adaptkit.runtime.selector import SelectorManifest, SelectorMember
from adaptkit.specs import ExportSpec

INPUT, CROSSING = (Value(name=name, dtype="float32", shape=(4,), bytes=16) for name in ("input", "h"))
ANSWER = AnswerForm(dtype="float32", shape=(3,))
KEPT = {"threshold": 0.1, "ratio": 0.8, "min_confidence": 0.2, "trust": 0.9, "capacity": 8, "eviction": "lru"}
_WEIGHTS = "<float[4, 3] w = {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6}, float[4, 2] v = {1, 0, 0, 1, 1, 1, 0, 1}>"
_NODES = {
    "h": "h = Relu(input)",
    "key": "k = MatMul(input, v) key = LpNormalization <axis = 1, p = 2> (k)",
    "score": "score = ReduceMax <keepdims = 0> (logits, one)",
    "votes": "votes = ReduceMean (input, one)",
}


def network(path: Path, *gives: str, takes: str = "input", notes: Metadata | None = None) -> None:
    """Write an ONNX file that takes N × 4 and gives what is asked for, N × 3 logits among it."""
    sizes = {"h": "[N, 4]", "logits": "[N, 3]", "key": "[N, 2]", "score": "[N]", "votes": "[N, 1]"}
    outputs = ", ".join(f"float{sizes[name]} {name}" for name in gives)
    nodes = [_NODES.get(name, f"{name} = MatMul({takes}, w)") for name in gives]
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g (float[N, 4] {takes}) => ({outputs})
        {_WEIGHTS[:-1]}, int64[1] one = {{1}}> {{ {" ".join(nodes)} }}"""
    _write(path, text, notes or Metadata())


def _write(path: Path, text: str, notes: Metadata) -> None:
    proto = onnx.parser.parse_model(text)
    notes.write(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)


def plain(folder: Path) -> None:
    """Write one file, with notes of a class for each output."""
    network(folder / "model.onnx", "logits", notes=Metadata(Normalize((0.5,), (0.2,)), ("a", "b", "ü"), "00", "0.1"))


def early_exit(folder: Path) -> None:
    """Write two stages."""
    network(folder / "0.onnx", "h", "logits", "score")
    network(folder / "1.onnx", "logits", takes="h")
    first = Stage(file="0.onnx", takes=INPUT, gives=CROSSING, logits="logits", score="score", threshold=0.5)
    last = Stage(file="1.onnx", takes=CROSSING, gives=None, logits="logits", score=None, threshold=None)
    ExitsManifest(files=describe(folder), rule="confidence", stages=(first, last)).write(folder)


def cascade(folder: Path) -> None:
    """Write two models, the second of them an early exit."""
    network(folder / "models/0/model.onnx", "logits")
    (folder / "models/1").mkdir(parents=True)
    early_exit(folder / "models/1")
    models = (CascadeMember(folder="models/0", threshold=0.5), CascadeMember(folder="models/1", threshold=None))
    CascadeManifest(files=describe(folder), rule="margin", classes=3, models=models).write(folder)


def selector(folder: Path) -> None:
    """Write a premodel and two models."""
    for number in range(2):
        network(folder / f"models/{number}/model.onnx", "logits")
    network(folder / "premodel.onnx", "votes")
    models = (SelectorMember(folder="models/0", threshold=0.5), SelectorMember(folder="models/1", threshold=None))
    SelectorManifest(files=describe(folder), premodel="premodel.onnx", classes=3, models=models).write(folder)


def result_cache(folder: Path) -> None:
    """Write a cache with lists, and entries that were saved."""
    network(folder / "key.onnx", "key")
    network(folder / "inner/model.onnx", "logits")
    safetensors.numpy.save_file({"centres": np.eye(2, dtype=np.float32)}, folder / "lists.safetensors")
    manifest = CacheManifest(
        files=describe(folder), unit="cosine", dimensions=2, shadow_rate=0.1, probes=1, answer=ANSWER, **KEPT
    )
    manifest.write(folder)
    cache = ResultCache.load(folder, manifest, 1, _inner)
    cache(np.eye(4, dtype=np.float32))
    cache.save()


def hash_cache(folder: Path) -> None:
    """Write a cache whose keys are hashes of 64 bits."""
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 4] input) => (float[N, 64] key)
        <int64[2] times = {1, 16}> { key = Tile(input, times) }"""
    _write(folder / "key.onnx", text, Metadata())
    network(folder / "inner/model.onnx", "logits")
    settings = {**KEPT, "threshold": 3, "shadow_rate": 0.0}
    CacheManifest(files=describe(folder), unit="bits", dimensions=64, answer=ANSWER, **settings).write(folder)


def activation_cache(folder: Path) -> None:
    """Write two stages, the first compared with known samples."""
    network(folder / "0.onnx", "h", "key")
    network(folder / "1.onnx", "logits", takes="h")
    known = {"keys": np.eye(2, dtype=np.float32), "answers": np.eye(2, 3, dtype=np.float32)}
    safetensors.numpy.save_file(known, folder / "memory.safetensors")
    memory = Memory(file="memory.safetensors", key="key", limits=(0.1, 0.1, -1))
    stages = (
        CachedStage(file="0.onnx", takes=INPUT, gives=CROSSING, memory=memory, logits=None),
        CachedStage(file="1.onnx", takes=CROSSING, gives=None, memory=None, logits="logits"),
    )
    ActivationManifest(files=describe(folder), neighbours=1, stages=stages).write(folder)


def activation_repeats(folder: Path) -> None:
    """Write two stages, the first compared with earlier samples."""
    network(folder / "0.onnx", "h", "key")
    network(folder / "1.onnx", "logits", takes="h")
    entries = Entries(key="key", dimensions=2, answer=ANSWER, **KEPT)
    stages = (
        CachedStage(file="0.onnx", takes=INPUT, gives=CROSSING, memory=None, entries=entries, logits=None),
        CachedStage(file="1.onnx", takes=CROSSING, gives=None, memory=None, logits="logits"),
    )
    ActivationManifest(files=describe(folder), neighbours=1, stages=stages).write(folder)


def frame_cache(folder: Path) -> None:
    """Write a network over frames of 8 × 8 with one segment."""
    made = "m = ReduceMean <keepdims = 0> (map, axes) logits = MatMul(m, w)"
    weights = "float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[2] axes = {2, 3}"
    conv = "map = Conv <pads = [0, 0, 0, 0]> (input, k)"
    kernel = "float[2, 1, 1, 1] k = {1, -1}"
    head = '<ir_version: 10, opset_import: ["" : 20]> g'
    frame, kept = "float[N, 1, {0}] input", "float[N, 2, {0}] map"
    size, free = "8, 8", "H, W"
    parts = {
        "whole.onnx": (frame.format(size), "float[N, 3] logits", f"{kernel}, {weights}", f"{conv} {made}"),
        "part.onnx": (frame.format(free), kept.format(free), kernel, conv),
        "rest.onnx": (kept.format(size), "float[N, 3] logits", weights, made),
    }
    for name, (takes, gives, constants, nodes) in parts.items():
        _write(folder / name, f"{head} ({takes}) => ({gives}) <{constants}> {{ {nodes} }}", Metadata())
    values = [
        Value(name=name, dtype="float32", shape=(n, 8, 8), bytes=256 * n) for name, n in (("input", 1), ("map", 2))
    ]
    segment = Segment(file="part.onnx", takes=values[0], gives=values[1], stride=1, before=0, after=0, tile=2, most=8)
    plan = FramePlan(
        whole="whole.onnx", frame=values[0], segments=(segment,), rest="rest.onnx",
        tolerances=(Tolerance(tau=0.1, few=0), Tolerance(tau=0.0, few=0)), most=8, refresh_every=9, longest_wait=4,
    )  # fmt: skip
    FramesManifest(files=describe(folder), plan=plan).write(folder)


def saved(folder: Path) -> None:
    """Write a compressed model as `adaptkit.load` reads it."""
    changed: nn.Sequential = saved_network()
    changed[0] = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4))
    save(changed, saved_network(), folder)


def saved_network() -> nn.Sequential:
    """Give the model that `saved` was made from."""
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


def run(folder: Path) -> None:
    """Write what a finished run leaves for --resume: its lock, a step, its report."""
    recipe = parse_recipe(
        "{version: 1, name: a, model: {zoo: lenet5_digits}, data: {digits: true}, steps: [prune.structured],"
        " lock: {weights_sha256: a, packages: {torch: '2'}, cpu: x, threads: 1}}"
    )
    figures = Figures(parameters=1, macs=2, bytes=3, latency_ms={"t1_b1": Percentiles(p50=1, p90=2, p99=3)}, speedup={})
    step = Step(name="prune.structured", settings={}, figures=figures, seconds=1.0)
    certificate = Certificate(
        passed=True, samples=1, accuracy_torch=1, accuracy_onnx=1, agreement=1, max_error=0, mean_error=0, tolerance=1
    )
    report = Report(
        name="a", baseline=figures, steps=[step], final=figures, gates=[], certificate=certificate, layers=[],
        recipe="", lock="", environment={}, seconds=1.0, created="2026",
    )  # fmt: skip
    found = RunFolder(folder)
    found.write(LOCK, dump_recipe(recipe))
    found.write(REPORT, report.model_dump_json())
    found.step(0, "baseline").mark_done({"figures": figures.model_dump()})
    found.step(1, "prune.structured").mark_done(step.model_dump(mode="json"))


def files(folder: Path) -> None:
    """Write ONNX files: one with a sparse constant, one with its weights beside it, one by hand with notes."""
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 40))
    with torch.no_grad():
        next(net.parameters())[:, 1:] = 0
    example = (torch.zeros(2, 32),)
    export_onnx(net, example, folder / "sparse.onnx", labels=("a", "b"))
    export_onnx(net, example, folder / "beside.onnx", spec=ExportSpec(single_file=False))
    plain(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "plain": plain,
    "early_exit": early_exit,
    "cascade": cascade,
    "selector": selector,
    "result_cache": result_cache,
    "hash_cache": hash_cache,
    "activation_cache": activation_cache,
    "activation_repeats": activation_repeats,
    "frame_cache": frame_cache,
}
"""What `AdaptedModel.load` opens."""


def _inner(folder: Path) -> Runner:
    return open_runner(folder, 1)
