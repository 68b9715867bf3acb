"""manifest.json: what the files of a conditional model are, and how they work together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptkit.errors import ModelError
from adaptkit.export.rule import Rule
from adaptkit.files import write_atomically

MANIFEST = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(_Part):
    """A file of the folder.

    Args:
        name: Relative to the folder, inside of it.
        sha256: Of its bytes.
    """

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Value(_Part):
    """What crosses from one stage to the next, for one sample.

    Args:
        name: In the ONNX files of both.
        dtype: numpy's name of its type.
        shape: Without the batch.
        bytes: On the wire.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: Annotated[int, Field(ge=0)]


class Stage(_Part):
    """One stage of an early exit.

    Args:
        file: Its ONNX file.
        takes: Its input.
        gives: What the next stage takes; None for the last.
        logits: Name of its answer.
        score: Name of how sure it is; None for the last.
        threshold: Where a sample leaves: at least this score, or at most where the rule is entropy; None for the last.
    """

    file: File
    takes: Value
    gives: Value | None
    logits: str
    score: str | None
    threshold: float | None


class Manifest(_Part):
    """An early exit.

    Args:
        version: Of this format.
        kind: What the folder holds.
        rule: What the scores are.
        stages: In order.
    """

    version: Literal[1] = 1
    kind: Literal["early_exit"] = "early_exit"
    rule: Rule
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            if stage.gives != following.takes:
                raise ValueError(f"{following.file.name} does not take what {stage.file.name} gives")
            if stage.score is None or stage.threshold is None:
                raise ValueError(f"{stage.file.name} has no score or no threshold")
        return self

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        write_atomically(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json, and hold every file it names against its hash.

    Raises:
        ModelError: It is missing, damaged, of another version, or names a file that is missing or of another build.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(found)
    except FileNotFoundError:
        raise ModelError(f"{path} is not there: give the folder of a finished run") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not a manifest: {str(error).splitlines()[0]}. Export the model again") from error
    except ValidationError as error:
        raise ModelError(f"{path} {_first_problem(found, error)}") from error
    for stage in manifest.stages:
        _check(folder, stage.file)
    return manifest


def describe(name: str, content: bytes) -> File:
    """Name a file with its hash."""
    return File(name=name, sha256=hashlib.sha256(content).hexdigest())


def _first_problem(found: Any, error: ValidationError) -> str:
    version = found.get("version") if isinstance(found, dict) else None
    if version != 1:
        return f"is of version {version!r}, this adaptkit reads version 1: export the model again, or update adaptkit"
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "it"
    return f"is wrong at {where}: {problem['msg']}. Export the model again"


def _check(folder: Path, file: File) -> None:
    path = folder / file.name
    if not path.is_file():
        raise ModelError(f"{path} is missing, and {folder / MANIFEST} needs it: copy the whole folder")
    if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} names: copy the whole folder, or export again")
