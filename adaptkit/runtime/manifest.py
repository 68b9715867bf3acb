"""manifest.json: what the files of a conditional model are, and how they work together."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptkit.errors import ModelError
from adaptkit.files import write_atomically
from adaptkit.specs import MOST_ENTRIES

MANIFEST = "manifest.json"
_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=_MOST)]
Capacity = Annotated[int, Field(ge=1, le=MOST_ENTRIES)]
Positive = Annotated[int, Field(ge=1, le=_MOST)]


class Part(BaseModel):
    """Anything inside a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(Part):
    """A file of the folder.

    Args:
        name: Relative to the folder, inside of it.
        sha256: Of its bytes.
    """

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Part):
    """What every manifest has; a kind of conditional computation adds to it.

    Args:
        version: Of this format.
        kind: What the folder holds: a name of `runtime.kinds.KINDS`.
        files: All files the model is made of, those of folders inside too.
    """

    version: Literal[1] = 1
    kind: str
    files: Annotated[tuple[File, ...], Field(min_length=1)]

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        write_atomically(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")

    def check_files(self, folder: Path) -> None:
        """Hold every file against its hash.

        Raises:
            ModelError: One is missing or of another build.
        """
        for file in self.files:
            path = folder / file.name
            if not path.is_file():
                raise ModelError(f"{path} is missing, and {folder / MANIFEST} needs it: copy the whole folder")
            if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
                raise ModelError(
                    f"{path} is not the file that {MANIFEST} names: copy the whole folder, or export again"
                )


def describe(folder: Path) -> tuple[File, ...]:
    """Name all files of a folder with their hashes, in order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return tuple(
        File(name=path.relative_to(folder).as_posix(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
    )
