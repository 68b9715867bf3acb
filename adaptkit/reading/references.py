"""Files and zoo models a recipe names: looked for before any work, and paths made absolute."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adaptkit.reading.document import Document
from adaptkit.reading.explain import nested_models
from adaptkit.reading.problem import KeyPath, hint
from adaptkit.specs import FILE, FILE_OR_FOLDER, FILE_OR_NAME, WRITABLE_FOLDER, ZOO_NAME
from adaptkit_zoo.index import names

_FORMATS = {extra["format"] for extra in (FILE, FILE_OR_FOLDER, FILE_OR_NAME, WRITABLE_FOLDER, ZOO_NAME)}
_WEIGHTS_NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")


def resolve_references(document: Document, model: type[BaseModel], section: dict[str, Any], path: KeyPath) -> None:
    """Make the paths of a section absolute, in place, and note the files and zoo models that are not there.

    A relative path in a file is relative to the folder of that file, in a `--set` option to the current folder.
    """
    for key, value, kind in _references(model, section):
        if kind == ZOO_NAME["format"]:
            _look_in_zoo(document, value, (*path, key))
        elif kind != FILE_OR_NAME["format"] or not _WEIGHTS_NAME.fullmatch(value):
            section[key] = _absolute(document, value, kind, (*path, key))
    for place, inner, nested in _sections(model, section):
        resolve_references(document, nested, inner, (*path, *place))


def names_python(value: Any) -> bool:
    """Whether a `python: module:function` stands anywhere in a value."""
    if isinstance(value, list):
        return any(names_python(inner) for inner in value)
    return isinstance(value, dict) and (isinstance(value.get("python"), str) or names_python([*value.values()]))


def _look_in_zoo(document: Document, name: str, path: KeyPath) -> None:
    known = names()
    if name not in known:
        document.add(path, f"no model {name!r} in the zoo{hint(name, known)}")


def _absolute(document: Document, value: str, kind: str, path: KeyPath) -> str:
    full = Path(os.path.abspath(document.place(path).folder / Path(value).expanduser()))
    if kind == FILE_OR_FOLDER["format"] and not full.exists():
        document.add(path, f"no such file or folder: {full}")
    elif kind in (FILE["format"], FILE_OR_NAME["format"]) and not full.is_file():
        document.add(path, f"{'is a folder, not a file' if full.is_dir() else 'no such file'}: {full}")
    return str(full)


def _references(model: type[BaseModel], section: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, field in model.model_fields.items():
        extra = field.json_schema_extra
        kind = extra.get("format") if isinstance(extra, dict) else None
        value = section.get(key)
        if kind in _FORMATS and isinstance(value, str):
            yield key, value, str(kind)


def _sections(
    model: type[BaseModel], section: dict[str, Any]
) -> Iterator[tuple[KeyPath, dict[str, Any], type[BaseModel]]]:
    """Yield the sections inside a section, those that stand in a list (several teachers) one by one."""
    for key, field in model.model_fields.items():
        value = section.get(key)
        entries: list[tuple[KeyPath, Any]] = [((key,), value)]
        if isinstance(value, list):
            entries = [((key, index), entry) for index, entry in enumerate(value)]
        for place, inner in entries:
            if isinstance(inner, dict):
                for nested in nested_models(field.annotation):
                    yield place, inner, nested
