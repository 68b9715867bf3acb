"""A model that a run before has finished, as a part of another one."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path

import onnx
from torch import Tensor

from adaptkit.errors import ModelError, RunFolderError
from adaptkit.export.files import read_model
from adaptkit.export.metadata import read_metadata
from adaptkit.export.packaging import Packaging
from adaptkit.runtime.folder import FILE, read_manifest
from adaptkit.runtime.manifest import MANIFEST
from adaptkit.runtime.model import AdaptedModel


class Finished:
    """A model on the disk, plain or conditional.

    Args:
        path: The folder of a finished run, or an ONNX file; must not change while this is in use.

    Raises:
        ModelError: Nothing that runs is there, or it takes pixels, as a file that normalizes by itself does.
    """

    def __init__(self, path: Path) -> None:
        self._path, model = path, AdaptedModel.load(path)
        self.paths = model.paths
        if model.normalize.in_graph:
            raise ModelError(
                f"{path} normalizes its input by itself, and is to run beside models that take it normalized: "
                "export it with normalize_in_graph: false"
            )

    @cached_property
    def _files(self) -> list[Path]:
        if self._conditional:
            names = [file.name for file in read_manifest(self._path).files]
            return [self._path / name for name in names if name.endswith(".onnx")]
        return [self._path / FILE if self._path.is_dir() else self._path]

    @property
    def _conditional(self) -> bool:
        return (self._path / MANIFEST).is_file()

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """Its networks, each as if it ran for every sample: how often it does is known where it was made."""
        return [(read_model(file), 1.0) for file in self._files]

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give None: its PyTorch network is not here."""
        del x
        return [None for _ in self.paths]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write a plain model anew, with the notes of all; copy the files of a conditional one.

        Raises:
            ModelError: It was made for other data, or it is conditional, and the files are to normalize by themselves.
            RunFolderError: The disk is full or the folder cannot be written.
        """
        if not self._conditional:
            self._check_data(packaging)
            packaging.write(read_model(self._files[0]), folder / FILE)
            return
        if packaging.spec.normalize_in_graph and packaging.mean:
            raise ModelError(
                f"{self._path} takes normalized inputs, and its files cannot be changed: set export.normalize_in_graph "
                "to false"
            )
        manifest = read_manifest(self._path)
        try:
            for name in [*(file.name for file in manifest.files), MANIFEST]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._path / name, folder / name)
        except OSError as error:
            raise RunFolderError(f"{folder} cannot be written: {error.strerror}") from error

    def _check_data(self, packaging: Packaging) -> None:
        entries = {entry.key: entry.value for entry in read_model(self._files[0]).metadata_props}
        notes = read_metadata(entries)
        given = (packaging.mean, packaging.std)
        if packaging.mean and notes.normalize.mean and given != (notes.normalize.mean, notes.normalize.std):
            raise ModelError(
                f"{self._path} normalizes with {list(notes.normalize.mean)}, this recipe with {list(packaging.mean)}: "
                "name a model of the same data"
            )
        if packaging.labels and notes.labels and notes.labels != packaging.labels:
            raise ModelError(f"{self._path} has other labels than this recipe's data: name a model of the same classes")
