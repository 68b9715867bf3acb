"""`--set steps.0.macs=0.4`: values of a recipe replaced from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adaptkit.reading.document import Document, read_option
from adaptkit.reading.problem import KeyPath, Place, Problem, dotted, shown

_LISTS = {"steps": "technique", "conditional": "kind of conditional computation", "metrics": "metric"}
"""The lists of a recipe whose entries are a name with settings, and what it names."""


class _NoSuchPathError(Exception):
    """The path leads into something that has no keys, or to a position that is not there."""


def apply_overrides(document: Document, overrides: Iterable[str]) -> None:
    """Replace values of a recipe, in order; what cannot be replaced becomes a problem of the document.

    Args:
        document: A recipe; a mapping.
        overrides: Each `path=value`: keys and positions joined by dots, and a YAML value. After `steps.N`,
            `conditional.N` or `metrics.N` comes a key of the settings there; the name they belong to may be written
            between.

    Example:
        >>> from adaptkit.reading.document import read_document
        >>> document = read_document("steps: [{prune.structured: {macs: 0.5}}]", "x.yaml", Path("."), {})
        >>> apply_overrides(document, ["steps.0.macs=0.4"])
        >>> document.data
        {'steps': [{'prune.structured': {'macs': 0.4}}]}
    """
    for override in overrides:
        place = Place(f"--set {override}", None, Path.cwd())
        keys, equals, text = override.partition("=")
        if not equals or not keys.strip():
            document.problems.append(Problem(place, (), "expected PATH=VALUE, such as steps.0.macs=0.4"))
            continue
        try:
            container, path = _open(document, keys.strip(), place)
        except _NoSuchPathError as error:
            document.problems.append(Problem(place, (), str(error)))
        else:
            container[path[-1]] = read_option(document, text, place, path)


def _open(document: Document, keys: str, place: Place) -> tuple[Any, KeyPath]:
    """Return the mapping or list that holds the value, and its whole key path; missing mappings are made."""
    here = document.data
    path: KeyPath = ()
    while True:
        token, more, keys = keys.partition(".")
        path = (*path, _key(here, path, token))
        if not more:
            return here, path
        if len(path) == 2 and path[0] in _LISTS and isinstance(here, list):
            name = _open_entry(here, path)
            entry = here[int(path[-1])]
            if keys == name:
                return entry, (*path, name)
            keys = keys.removeprefix(f"{name}.")
            here, path = entry[name], (*path, name)
            continue
        if isinstance(here, dict) and here.get(token) is None:
            document.places[path] = place
            here[token] = {}
        here = here[path[-1]]


def _key(container: Any, path: KeyPath, token: str) -> str | int:
    if isinstance(container, dict):
        return token
    if not isinstance(container, list):
        raise _NoSuchPathError(f"{dotted(path)} is {shown(container)}, which has no {token!r} in it")
    if token.isdecimal() and int(token) < len(container):
        return int(token)
    raise _NoSuchPathError(f"{dotted(path)} has {len(container)} entries, counted from 0; got {token!r}")


def _open_entry(entries: Any, path: KeyPath) -> str:
    """Write an entry of a list as a name with a mapping of settings, in place, and return the name."""
    entry = entries[path[-1]]
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise _NoSuchPathError(f"{dotted(path)} is {shown(entry)}, not one {_LISTS[str(path[0])]} with its settings")
    name, settings = next(iter(entry.items()))
    entries[path[-1]] = {name: {} if settings is None else settings}
    return str(name)
