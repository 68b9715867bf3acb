"""Where a value of a recipe was written, and what is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where a value was written: a line of a file, or a `--set` option.

    Args:
        source: The file as the user named it, or the whole option.
        line: Counted from 1; None for an option.
        folder: What relative paths in the value are relative to.
    """

    source: str
    line: int | None
    folder: Path

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One mistake, as one line: place, dotted key path, message.

    Example:
        >>> print(Problem(Place("edge.yaml", 7, Path(".")), ("steps", 0, "prune"), "unknown technique"))
        edge.yaml:7: steps.0.prune: unknown technique
    """

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        parts = [str(self.place), dotted(self.path), self.message]
        return ": ".join(part for part in parts if part)


def in_order(problems: Iterable[Problem]) -> list[str]:
    """Return the lines of the problems, each once, from the top of the file down, options last."""
    first_option = float("inf")
    by_line = sorted(problems, key=lambda problem: problem.place.line or first_option)
    return list(dict.fromkeys(str(problem) for problem in by_line))


def dotted(path: KeyPath) -> str:
    """Write a key path with dots.

    Example:
        >>> dotted(("steps", 0, "macs"))
        'steps.0.macs'
    """
    return ".".join(str(part) for part in path)


def closest(word: str, options: Iterable[str]) -> str | None:
    """Return the option most like `word`, or None where none is.

    Example:
        >>> closest("mac", ["macs", "params"])
        'macs'
    """
    found = difflib.get_close_matches(word, list(options), n=1)
    return found[0] if found else None


def hint(word: str, options: Iterable[str]) -> str:
    """End a message about an unknown word: the closest option, or all of them.

    Example:
        >>> hint("mac", ["macs", "params"])
        "; did you mean 'macs'?"
        >>> hint("colour", ["macs", "params"])
        '; allowed: macs, params'
    """
    allowed = list(options)
    likely = closest(word, allowed)
    if likely is not None:
        return f"; did you mean {likely!r}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else ""


def shown(value: Any) -> str:
    """Write a value as a recipe would, shortened to one line.

    Example:
        >>> shown(True), shown(None), shown("a"), shown([1, 2])
        ('true', 'null', "'a'", '[1, 2]')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def either(words: Iterable[str]) -> str:
    """Join words with commas and a last "or".

    Example:
        >>> either(["a", "b", "c"])
        'a, b or c'
    """
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last
