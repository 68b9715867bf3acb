"""The names of the zoo: what builds a model, what it eats, and which trained weights come with it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from torch import nn

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One model of the zoo, as index.yaml says.

    Args:
        builder: module:function inside the zoo.
        input_shape: Shape of one sample, channels first.
        weights: File beside the index with trained weights, or None.
        sha256: Of the weights file.
        accuracy: Top-1 of the weights on the test split named in `trained`.
        trained: How the weights were made.
        licence: Of the weights.
    """

    builder: str
    input_shape: tuple[int, ...]
    weights: str | None = None
    sha256: str | None = None
    accuracy: float | None = None
    trained: str | None = None
    licence: str | None = None


@cache
def entries() -> dict[str, Entry]:
    """Read the index.

    Example:
        >>> entries()["resnet56_cifar"].input_shape
        (3, 32, 32)
    """
    raw: dict[str, dict[str, Any]] = YAML(typ="safe").load(_FOLDER / "index.yaml")
    return {name: Entry(**{**fields, "input_shape": tuple(fields["input_shape"])}) for name, fields in raw.items()}


def names() -> list[str]:
    """List the models of the zoo."""
    return sorted(entries())


def builders() -> dict[str, Callable[..., "nn.Module"]]:
    """Map each name to the function that builds the model, untrained."""
    found: dict[str, Callable[..., nn.Module]] = {}
    for name, entry in entries().items():
        module, function = entry.builder.split(":")
        found[name] = getattr(importlib.import_module(f"adaptkit_zoo.{module}"), function)
    return found


def input_shape(name: str) -> tuple[int, ...]:
    """Give the shape of one sample, channels first."""
    return entries()[name].input_shape


def weights_path(name: str) -> Path | None:
    """Give the file of the trained weights that come with the zoo, or None."""
    weights = entries()[name].weights
    return _FOLDER / weights if weights else None
