"""What an ONNX file says about itself: input normalization, labels, where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

import adaptkit

NORMALIZE = "adaptkit.normalize"
LABELS = "adaptkit.labels"
RECIPE = "adaptkit.recipe_sha256"
VERSION = "adaptkit.version"
EXITS = "adaptkit.exits"
"""In a file with exits, how many there are, the last counted."""
EXIT_INDEX = "exit_index"
"""Its output with the number of the exit that was taken."""


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

    Example:
        >>> read_metadata(Metadata(labels=("cat", "dog")).entries()).labels
        ('cat', 'dog')
    """
    raw: dict[str, Any] = json.loads(entries.get(NORMALIZE, "{}"))
    labels: Sequence[str] = json.loads(entries.get(LABELS, "[]"))
    normalize = Normalize(tuple(raw.get("mean", ())), tuple(raw.get("std", ())), bool(raw.get("in_graph", False)))
    return Metadata(normalize, tuple(labels), entries.get(RECIPE, ""), entries.get(VERSION, ""))
