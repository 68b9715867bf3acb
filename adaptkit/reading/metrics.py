"""The metrics that a recipe or a command asks for: names, and studies with their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.metrics.registry import METRICS, check_names
from adaptkit.reading.document import Document, read_document
from adaptkit.reading.problem import dotted, shown
from adaptkit.reading.steps import read_entry
from adaptkit.studies import STUDIES, Asked

_KEY = "metrics"


def read_metrics(document: Document, entries: Any) -> tuple[Asked, ...]:
    """Turn the `metrics` of a recipe into names and studies; problems go into the document.

    Args:
        document: The recipe.
        entries: What stands in it.

    Returns:
        Those that are right.
    """
    if not isinstance(entries, list):
        document.add((_KEY,), f"expected a list, such as [accuracy, f1]; got {shown(entries)}")
        return ()
    found = [_read(document, entry, index) for index, entry in enumerate(entries)]
    return tuple(entry for entry in found if entry is not None)


def parse_metrics(text: str) -> tuple[Asked, ...]:
    """Read what `--metrics` takes: the inside of a recipe's list.

    Raises:
        DataError: A name is unknown, or a setting is wrong.

    Example:
        >>> parse_metrics("f1, corruptions: {kinds: [jpeg]}")
        ('f1', Corruptions(kinds=('jpeg',), severities=(1, 2, 3, 4, 5), samples=1000, seed=0))
    """
    document = read_document(f"{_KEY}: [{text}]", "--metrics", Path.cwd(), {})
    found = () if document.problems else read_metrics(document, document.data[_KEY])
    if document.problems:
        problems = [(dotted(problem.path[2:]), problem.message) for problem in document.problems]
        raise DataError("; ".join(": ".join(part for part in parts if part) for parts in problems))
    return found


def _read(document: Document, entry: Any, index: int) -> Asked | None:
    path = (_KEY, index)
    name = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else entry
    if not isinstance(name, str) or name in STUDIES:
        return read_entry(document, entry, path, STUDIES)
    try:
        check_names([name], (*METRICS, *STUDIES))
    except DataError as error:
        document.add(path, str(error))
        return None
    if isinstance(entry, dict):
        document.add((*path, name), f"has no settings; write {name} alone")
        return None
    return name
