"""The facts a result depends on besides the recipe: what the lock file adds to it."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptkit.errors import RunFolderError
from adaptkit.recipe import Recipe, dump_recipe
from adaptkit.training.checkpoint import state_sha256

_FIXED = (("weights_sha256", "weights", "are"), ("data_sha256", "data", "is"), ("recipe_sha256", "recipe", "is"))
_PACKAGES = ("adaptkit", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "numpy")


def facts(recipe: Recipe, model: nn.Module, data_sha256: str) -> dict[str, Any]:
    """Collect the facts: hashes of weights and data, package versions, processor, and the hash of the recipe.

    The recipe's hash counts contents instead of paths, so that it is the same on every machine.

    Args:
        recipe: The recipe.
        model: The model as loaded, before any step.
        data_sha256: The hash of the data's content.
    """
    weights = state_sha256(model)
    return {
        "weights_sha256": weights,
        "data_sha256": data_sha256,
        "recipe_sha256": _recipe_sha256(recipe, weights, data_sha256),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """Name the processor as the operating system does."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compare(locked: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare the facts of a lock with those of this machine; other versions or processors are worth a note.

    Returns:
        One sentence for each difference that may change the result.

    Raises:
        RunFolderError: Weights, data or recipe are not those of the lock, so this would be another run; or the lock is
            damaged.
    """
    packages = locked.get("packages", {})
    if not isinstance(packages, dict):
        raise RunFolderError("lock.packages is no mapping of names to versions: start a new run with another --output")
    for key, what, verb in _FIXED:
        if key in locked and locked[key] != now[key]:
            raise RunFolderError(
                f"the {what} {verb} not what the lock says ({key} was {str(locked[key])[:12]}…, is {now[key][:12]}…): "
                "bring back what it was made with, or start a new run with another --output"
            )
    notes = [
        f"{name} was {version} when the lock was written, is {now['packages'].get(name)} here"
        for name, version in packages.items()
        if now["packages"].get(name) != version
    ]
    if locked.get("cpu", now["cpu"]) != now["cpu"]:
        notes.append(f"the lock was written on {locked['cpu']}, this is {now['cpu']}: bits may differ")
    if locked.get("threads", now["threads"]) != now["threads"]:
        notes.append(f"PyTorch ran on {locked['threads']} threads, runs on {now['threads']} here: bits may differ")
    return notes


def _recipe_sha256(recipe: Recipe, weights: str, data: str) -> str:
    model = recipe.model.model_copy(update={"weights": weights})
    source = {key: data for key in ("npz", "imagefolder", "root") if getattr(recipe.data, key) is not None}
    portable = recipe.model_copy(
        update={"model": model, "data": recipe.data.model_copy(update=source), "lock": {}, "name": "", "folder": None}
    )
    return hashlib.sha256(dump_recipe(portable).encode()).hexdigest()
