"""Results files: figures with where, with what and from which commit they were measured."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness.suite import Found, Place
from benchmarks.machine import machine

PACKAGES = ("adaptkit", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "scikit-learn")


def path_of(folder: Path, name: str) -> Path:
    """Name the file of a suite; other files of the folder are those of single scripts."""
    return folder / f"peers_{name}.json"


def read(folder: Path, name: str) -> Found | None:
    """Read what a suite has measured, None where it has not."""
    path = path_of(folder, name)
    return json.loads(path.read_text()) if path.is_file() else None


def write(place: Place, name: str, figures: Found, seconds: float) -> Path:
    """Write what a suite has measured, with the facts it depends on."""
    path = path_of(place.results, name)
    place.results.mkdir(parents=True, exist_ok=True)
    facts = {
        "size": place.size,
        "seed": place.seed,
        "seconds": round(seconds, 1),
        "threads": 1,
        "peers": place.peers.found,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "machine": {**machine(), "clean": clean()},
    }
    path.write_text(json.dumps({"figures": figures, **facts}, indent=1, default=_plain) + "\n")
    return path


def clean() -> bool:
    """Say whether the code is that of the commit: no file but results and pages was changed after it."""
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", "adaptkit", "benchmarks/*.py", "model_zoo"]
    changed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    return changed.returncode == 0 and not changed.stdout.strip()


def _plain(value: Any) -> Any:
    return value.item()
