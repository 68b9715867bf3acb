"""What an ONNX file says about itself: input normalization, labels, where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

import adaptkit
from adaptkit.errors import ModelError

NORMALIZE = "adaptkit.normalize"
LABELS = "adaptkit.labels"
RECIPE = "adaptkit.recipe_sha256"
VERSION = "adaptkit.version"
EXITS = "adaptkit.exits"
"""In a file with exits, how many there are, the last counted."""
EXIT_INDEX = "exit_index"
"""Its output with the number of the exit that was taken."""
_AGAIN = "Export the model again"
_DIGITS = 5


@dataclass(frozen=True)
class Normalize:
    """How pixels in [0, 1] become the model's input: (pixel - mean) / std per channel.

    Args:
        mean: Per channel; empty where the model takes pixels as they are.
        std: Per channel.
        in_graph: Whether the file does it, so that it is fed pixels in [0, 1].
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    in_graph: bool = False


@dataclass(frozen=True)
class Metadata:
    """The notes adaptkit keeps in an ONNX file.

    Args:
        normalize: Of the input.
        labels: Name of each class, in the order of the outputs.
        recipe_sha256: Of the recipe that made the file.
        version: Of adaptkit.
    """

    normalize: Normalize = Normalize()
    labels: tuple[str, ...] = ()
    recipe_sha256: str = ""
    version: str = adaptkit.__version__

    def write(self, proto: onnx.ModelProto) -> None:
        """Replace the notes of a model; those of others stay."""
        entries = {entry.key: entry.value for entry in proto.metadata_props} | self.entries()
        onnx.helper.set_model_props(proto, entries)

    def entries(self) -> dict[str, str]:
        """Give the notes as strings."""
        normalize = {
            "mean": list(self.normalize.mean),
            "std": list(self.normalize.std),
            "in_graph": self.normalize.in_graph,
        }
        return {
            NORMALIZE: json.dumps(normalize),
            LABELS: json.dumps(list(self.labels), ensure_ascii=False),
            RECIPE: self.recipe_sha256,
            VERSION: self.version,
        }


def read_metadata(entries: Mapping[str, str]) -> Metadata:
    """Read the notes back from the metadata properties of a file; a file of others gives an empty record.

    Raises:
        ModelError: They are damaged.

    Example:
        >>> read_metadata(Metadata(labels=("cat", "dog")).entries()).labels
        ('cat', 'dog')
    """
    raw, labels = _decoded(entries, NORMALIZE, {}), _decoded(entries, LABELS, [])
    mean, std = (tuple(raw.get(key, ())) if _numbers(raw.get(key, [])) else None for key in ("mean", "std"))
    if mean is None or std is None or len(mean) != len(std) or 0 in std:
        raise ModelError(
            f"the file's note {NORMALIZE} is damaged: it has a mean and a deviation for each channel. {_AGAIN}"
        )
    if not all(isinstance(label, str) for label in labels):
        raise ModelError(f"the file's note {LABELS} is damaged: labels are text. {_AGAIN}")
    normalize = Normalize(mean, std, bool(raw.get("in_graph", False)))
    return Metadata(normalize, tuple(labels), entries.get(RECIPE, ""), entries.get(VERSION, ""))


def exits_in(entries: Mapping[str, str]) -> int | None:
    """Say how many exits a file has, None where it has none.

    Raises:
        ModelError: The note is damaged.
    """
    text = entries.get(EXITS)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < _DIGITS and int(text)):
        raise ModelError(f"the file's note {EXITS} is damaged: {text[:50]!r} is no number of exits. {_AGAIN}")
    return int(text)


def _decoded(entries: Mapping[str, str], key: str, default: Any) -> Any:
    try:
        found = json.loads(entries[key]) if key in entries else default
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the file's note {key} is damaged: {str(error).splitlines()[0]}. {_AGAIN}") from error
    if not isinstance(found, type(default)):
        raise ModelError(f"the file's note {key} is damaged: it is no {type(default).__name__}. {_AGAIN}")
    return found


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)
