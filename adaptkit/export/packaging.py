"""What goes into every ONNX file that takes the model's input, besides the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from adaptkit.export.files import write_model
from adaptkit.export.held import Held
from adaptkit.export.metadata import Metadata, Normalize
from adaptkit.export.normalize import add_normalization
from adaptkit.specs import ExportSpec

_DEFAULT = ExportSpec()


@dataclass(frozen=True)
class Packaging:
    """How files are written, and what they say about themselves.

    Args:
        spec: One file or two, normalization inside the graph or not.
        labels: Name of each class.
        mean: Per channel of images in [0, 1]; empty where the model takes pixels as they are.
        std: Per channel.
        recipe_sha256: Of the recipe that made the model.
    """

    spec: ExportSpec = _DEFAULT
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    recipe_sha256: str = ""

    def write(self, proto: onnx.ModelProto, path: Path, held: Held | None = None) -> None:
        """Write a network whose first input is the model's: it normalizes where the spec says so, and has the notes.

        Args:
            proto: Changed in place.
            path: Of the .onnx file; its folder must exist.
            held: Large constants that are not in the network itself.

        Raises:
            ModelError: The network is not valid ONNX, or has other channels than the normalization.
            RunFolderError: The disk is full or the folder cannot be written.
        """
        in_graph = self.spec.normalize_in_graph and bool(self.mean)
        if in_graph:
            add_normalization(proto, self.mean, self.std)
        Metadata(Normalize(self.mean, self.std, in_graph), self.labels, self.recipe_sha256).write(proto)
        write_model(proto, path, self.spec.single_file, held)
