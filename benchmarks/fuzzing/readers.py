"""Artifacts and ONNX files as nobody should write them, and what opens them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from adaptkit.export.files import file_bytes, read_model
from adaptkit.loading.saved import load
from adaptkit.lock import compare
from adaptkit.profiling.artifact import is_conditional, model_bytes
from adaptkit.profiling.graph import graph_cost
from adaptkit.recipe import parse_recipe
from adaptkit.report.schema import Figures
from adaptkit.run_dir import LOCK, open_run
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.manifest import MANIFEST

from . import artifacts
from .texts import damage, scramble
from .trees import mutate

_TYPES = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def open_and_run(path: Path) -> None:
    """Open a model as a server does, and let it answer three samples of zeros, where their shape is known."""
    model = AdaptedModel.load(path, 1)
    model_bytes(path)
    takes = model.runner.first.get_inputs()[0]
    sizes = [3, *(size if isinstance(size, int) else 8 for size in takes.shape[1:])]
    if np.prod(sizes, dtype=float) < 1e6:
        model(np.zeros(sizes, _TYPES.get(takes.type, np.float32)))


def take_up(path: Path) -> None:
    """Read what an earlier process left in a run folder, as --resume does."""
    with open_run(path, resume=True) as folder:
        lock = parse_recipe(folder.read_lock() or "", source=LOCK)
        compare(
            lock.lock,
            {"weights_sha256": "a", "data_sha256": "b", "recipe_sha256": "c", "packages": {}, "cpu": "", "threads": 2},
        )
        for index, name in enumerate(("baseline", "prune.structured")):
            step = folder.step(index, name)
            if step.is_done:
                step.read_done(Figures, "figures")
        if folder.is_finished:
            folder.read_report()


class ArtifactReader:
    """Made-up artifact folders of every kind, and saved models.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self._whole, self._damaged = folder / "whole", folder / "damaged"
        self._kinds = {**artifacts.KINDS, "saved": artifacts.saved, "run": artifacts.run}
        for name, make in self._kinds.items():
            (self._whole / name).mkdir(parents=True)
            make(self._whole / name)
        (folder / "outside").write_bytes((self._whole / "plain/model.onnx").read_bytes())

    def __call__(self, rng: random.Random) -> None:
        """Damage a copy of one, and open it."""
        name = rng.choice(list(self._kinds))
        shutil.rmtree(self._damaged, ignore_errors=True)
        shutil.copytree(self._whole / name, self._damaged)
        self._damage(rng)
        match name:
            case "saved":
                load(artifacts.saved_network, self._damaged)
            case "run":
                take_up(self._damaged)
            case _:
                open_and_run(self._damaged)

    def _damage(self, rng: random.Random) -> None:
        notes = rng.choice(
            [path for path in _files_in(self._damaged) if path.suffix == ".json"] or [self._damaged / MANIFEST]
        )
        written = notes.is_file() and rng.random() < 0.8
        if not written or rng.random() < 0.3:
            path = rng.choice(_files_in(self._damaged))
            self._damage_file(rng, path)
            if path.name != MANIFEST and (self._damaged / MANIFEST).is_file() and rng.random() < 0.7:
                _hash_again(self._damaged)
        if written and notes.is_file():
            notes.write_bytes(_changed(rng, notes.read_bytes()))

    def _damage_file(self, rng: random.Random, path: Path) -> None:
        others = _files_in(self._whole)
        match rng.randrange(8):
            case 0:
                path.unlink()
            case 1:
                path.unlink()
                path.symlink_to(rng.choice((self._damaged.parent / "outside", path, Path("/dev/zero"))))
            case 2:
                path.unlink()
                path.mkdir()
            case 3:
                path.write_bytes(rng.choice(others).read_bytes())
            case 4:
                path.write_bytes(b"")
            case 5 if path.suffix == ".onnx":
                path.write_bytes(_other_notes(rng, path.read_bytes()))
            case 6:
                os.mkfifo(path.with_name("pipe"))
            case _:
                path.write_bytes(damage(rng, path.read_bytes()))


def _files_in(folder: Path) -> list[Path]:
    """List files in an order that does not depend on the disk."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _changed(rng: random.Random, content: bytes) -> bytes:
    """Change a JSON file as a tree, as lines, or as bytes."""
    match rng.randrange(10):
        case 0:
            return damage(rng, content)
        case 1:
            return scramble(rng, content.decode("utf-8", "replace")).encode("utf-8", "surrogatepass")
        case 2:
            return rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"", b"\xff\xfe", b"null", b"[]"))
        case _:
            try:
                return json.dumps(mutate(rng, json.loads(content))).encode()
            except (ValueError, RecursionError):
                return damage(rng, content)


def _hash_again(folder: Path) -> None:
    """Let the manifest vouch for the files as they are now."""
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    for file in found["files"]:
        path = folder / file["name"]
        if path.is_file():
            file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(found))


def _other_notes(rng: random.Random, content: bytes) -> bytes:
    """Change what an ONNX file says about itself."""
    proto = onnx.ModelProto.FromString(content)
    odd = (
        "",
        "null",
        "[]",
        "{}",
        "3",
        "{",
        '{"mean": 3}',
        '{"mean": ["x"], "std": [0]}',
        "[1, 2]",
        "9" * 5000,
        "-1",
        "[[",
    )
    for key in ("adaptkit.normalize", "adaptkit.labels", "adaptkit.exits", "adaptkit.scopes"):
        if rng.random() < 0.4:
            proto.metadata_props.add(key=key, value=rng.choice(odd))
    changed: bytes = proto.SerializeToString()
    return changed


class OnnxReader:
    """Damaged ONNX files, with what lies beside them.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        artifacts.files(folder)
        self._contents = [path.read_bytes() for path in sorted(folder.glob("*.onnx"))]

    def __call__(self, rng: random.Random) -> None:
        """Damage one, and read it as `adaptkit profile` does before it measures; then run it."""
        path = self._folder / "damaged.onnx"
        content = rng.choice(self._contents)
        path.write_bytes(_other_notes(rng, content) if rng.random() < 0.05 else damage(rng, content))
        file_bytes(path)
        is_conditional(path)
        graph_cost(read_model(path))
        open_and_run(path)
