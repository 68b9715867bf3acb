"""Opens what a folder holds: one file, or a manifest and what it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adaptkit.errors import ModelError
from adaptkit.runtime.kinds import KINDS
from adaptkit.runtime.manifest import MANIFEST, Manifest
from adaptkit.runtime.result import Runner
from adaptkit.runtime.session import open_session
from adaptkit.runtime.whole import Whole

FILE = "model.onnx"
"""A model that is one file."""
_SMALLER = "export it with smaller caches, or run it on a larger machine"
_REMEDY = "export the model again, or update adaptkit"


def open_runner(path: Path, threads: int | None = None) -> Runner:
    """Open an ONNX file, or a folder with a manifest or a model.onnx.

    Args:
        path: File or folder.
        threads: Threads within an operator; None takes one a core.

    Raises:
        ModelError: Nothing is there, a file is of another build, or ONNX Runtime cannot run it.
    """
    if path.is_dir() and (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        try:
            return KINDS[manifest.kind].open(path, manifest, threads, lambda inner: open_runner(inner, threads))
        except MemoryError as error:
            raise ModelError(f"{path} takes more memory than there is ({error}): {_SMALLER}") from error
    if path.is_dir() and not (path / FILE).is_file():
        raise ModelError(f"{path} holds no {FILE} and no {MANIFEST}: give an ONNX file or the folder of a finished run")
    return Whole(open_session(path / FILE if path.is_dir() else path, threads))


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json, and hold every file it names against its hash.

    Raises:
        ModelError: It is missing, damaged, of another version, or names a file that is missing or of another build.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        manifest = _form(path, found).model_validate(found)
    except FileNotFoundError:
        raise ModelError(f"{path} is not there: give the folder of a finished run") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "it"
        raise ModelError(f"{path} is wrong at {where}: {problem['msg']}. Export the model again") from error
    except (OSError, RecursionError, ValueError) as error:
        raise ModelError(f"{path} is not a manifest: {str(error).splitlines()[0]}. Export the model again") from error
    manifest.check_files(folder)
    return manifest


def _form(path: Path, found: Any) -> type[Manifest]:
    """Find the class that a manifest is of."""
    version, kind = (found.get("version"), found.get("kind")) if isinstance(found, dict) else (None, None)
    if version != 1:
        raise ModelError(f"{path} is of version {version!r}, this adaptkit reads version 1: {_REMEDY}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"{path} is of kind {kind!r}, this adaptkit runs {', '.join(KINDS)}: {_REMEDY}")
    return KINDS[kind].manifest
