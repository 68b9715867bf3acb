"""The entries of a recipe's lists: a name, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from adaptkit.order import order_problems
from adaptkit.reading.document import Document
from adaptkit.reading.explain import check
from adaptkit.reading.problem import KeyPath, hint, shown
from adaptkit.reading.references import resolve_references
from adaptkit.technique import Technique

Kind = TypeVar("Kind", bound=BaseModel)
_WORDS = {
    "steps": ("step", "technique", "prune.structured"),
    "conditional": ("conditional", "kind of conditional computation", "early_exit"),
    "metrics": ("metric", "metric", "corruptions"),
}
"""What an entry of each list is called, what it names, and an example."""


def read_steps(document: Document, steps: Any, techniques: Mapping[str, type[Technique]]) -> tuple[Technique, ...]:
    """Turn the `steps` of a recipe into techniques; problems go into the document, and a wrong step is left out."""
    found = read_entries(document, steps, techniques, "steps")
    kinds = [None if step is None else type(step) for step in found]
    for index, message in order_problems(kinds, techniques):
        document.add(("steps", index, *steps[index]) if isinstance(steps[index], dict) else ("steps", index), message)
    return tuple(step for step in found if step is not None)


def read_entries(document: Document, entries: Any, table: Mapping[str, type[Kind]], key: str) -> list[Kind | None]:
    """Turn a list of names with settings into objects; problems go into the document, with None in their place.

    Args:
        document: The recipe.
        entries: What stands in it.
        table: The classes by name.
        key: Of the list in the recipe.
    """
    if not isinstance(entries, list):
        document.add((key,), f"expected a list, each entry starting with a dash; got {shown(entries)}")
        return []
    return [read_entry(document, entry, (key, index), table) for index, entry in enumerate(entries)]


def read_entry(document: Document, entry: Any, path: KeyPath, table: Mapping[str, type[Kind]]) -> Kind | None:
    """Turn a name with settings into an object, or None with a problem in the document.

    Args:
        document: The recipe.
        entry: What stands in it: a name, or a mapping of one to its settings.
        path: Where it stands.
        table: The classes by name.
    """
    word, named, example = _WORDS[str(path[0])]
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or not entry:
        document.add(path, f"expected a {named} and its settings, such as {example}: {{}}; got {shown(entry)}")
        return None
    name, *others = entry
    if name not in table:
        document.add((*path, name), f"unknown {named} {shown(name)}{hint(name, table)}")
        return None
    if others:
        document.add(path, _too_many_keys(name, others, table[name], word, named))
        return None
    settings = {} if entry[name] is None else entry[name]
    if not isinstance(settings, dict):
        document.add((*path, name), f"expected a mapping of settings, got {shown(settings)}")
        return None
    return _checked(document, table[name], settings, (*path, name))


def _too_many_keys(name: str, others: list[str], kind: type[BaseModel], word: str, named: str) -> str:
    if all(other in kind.model_fields for other in others):
        return f"indent {', '.join(others)} below {name}: settings stand two spaces deeper than their {named}"
    return f"a {word} is one {named}, found {', '.join([name, *others])}: begin each with a dash"


def _checked(document: Document, kind: type[Kind], settings: dict[str, Any], path: KeyPath) -> Kind | None:
    resolve_references(document, kind, settings, path)
    found, mistakes = check(kind, settings)
    for mistake in mistakes:
        document.add((*path, *mistake.path), mistake.message)
    return found if isinstance(found, kind) else None
