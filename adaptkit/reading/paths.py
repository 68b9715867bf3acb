"""Files a recipe names: made absolute, and looked for before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adaptkit.reading.document import Document
from adaptkit.reading.explain import nested_models
from adaptkit.reading.problem import KeyPath
from adaptkit.specs import FILE, FILE_OR_FOLDER, FILE_OR_NAME, WRITABLE_FOLDER

_FORMATS = {extra["format"] for extra in (FILE, FILE_OR_FOLDER, FILE_OR_NAME, WRITABLE_FOLDER)}
_WEIGHTS_NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")


def resolve_paths(document: Document, model: type[BaseModel], section: dict[str, Any], path: KeyPath) -> None:
    """Make the paths of a section absolute, in place, and note the files that are not there.

    A relative path in a file is relative to the folder of that file, in a `--set` option to the current folder.
    """
    for key, value, kind in _paths(model, section):
        if kind == FILE_OR_NAME["format"] and _WEIGHTS_NAME.fullmatch(value):
            continue
        where = (*path, key)
        full = Path(os.path.abspath(document.place(where).folder / Path(value).expanduser()))
        section[key] = str(full)
        if kind == FILE_OR_FOLDER["format"] and not full.exists():
            document.add(where, f"no such file or folder: {full}")
        elif kind in (FILE["format"], FILE_OR_NAME["format"]) and not full.is_file():
            document.add(where, f"{'is a folder, not a file' if full.is_dir() else 'no such file'}: {full}")
    for key, inner, nested in _sections(model, section):
        resolve_paths(document, nested, inner, (*path, key))


def _paths(model: type[BaseModel], section: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, field in model.model_fields.items():
        extra = field.json_schema_extra
        kind = extra.get("format") if isinstance(extra, dict) else None
        value = section.get(key)
        if kind in _FORMATS and isinstance(value, str):
            yield key, value, str(kind)


def _sections(model: type[BaseModel], section: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], type[BaseModel]]]:
    for key, field in model.model_fields.items():
        value = section.get(key)
        if isinstance(value, dict):
            for nested in nested_models(field.annotation):
                yield key, value, nested
