"""`${NAME}` and `${NAME:-default}` in the values of a recipe.

YAML gives braces a meaning of their own (`{weights: ${DATA}/w}` is not YAML), so variables are hidden before the text
is parsed and put back into each value afterwards: what a variable holds can never change the structure of a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MARK, _END = "\ue000", "\ue001"
# What stands in quotes may hold escapes, which YAML must see; there only the opening is hidden.
# A variable ends before the next one opens, so that a text of openings alone is gone through once.
_HIDE = re.compile(r"\$?\$\{(?:(?!\$\{)[^}'\"\\\n])*\}|\$?\$\{|" + _MARK)
_HIDDEN = re.compile(_MARK + r"(\d+)" + _END)
_VARIABLE = re.compile(r"\$\$\{|\$\{((?:(?!\$\{)[^}])*)\}|\$\{")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


def hide(text: str) -> tuple[str, list[str]]:
    """Replace every variable by a mark that means nothing to YAML; `reveal` undoes it.

    Example:
        >>> hidden, pieces = hide("{weights: ${DATA}/w.pt}")
        >>> pieces, reveal(hidden, pieces)
        (['${DATA}'], '{weights: ${DATA}/w.pt}')
    """
    pieces: list[str] = []

    def mark(match: re.Match[str]) -> str:
        pieces.append(match[0])
        return f"{_MARK}{len(pieces) - 1}{_END}"

    return _HIDE.sub(mark, text), pieces


def reveal(text: str, pieces: list[str]) -> str:
    """Put hidden variables back as they were written."""
    return _HIDDEN.sub(lambda match: pieces[int(match[1])], text)


def expand(text: str, env: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace every variable of a text by its value; `$${` stands for a plain `${`.

    A default is used where the variable is unset or empty, as in a shell.

    Returns:
        The expanded text, and a message for each variable that could not be replaced.

    Example:
        >>> expand("${ROOT}/${KIND:-data}", {"ROOT": "/srv"})
        ('/srv/data', [])
        >>> expand("${ROOT}/data", {})[1]
        ['variable ROOT is not set: run  export ROOT=...  or write ${ROOT:-default}']
    """
    messages: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(match[1] or "")
        if inside is None:
            messages.append(f"cannot read {match[0]!r}: write ${{NAME}}, ${{NAME:-default}}, or $${{ for a plain ${{")
            return ""
        name, default = inside["name"], inside["default"]
        if default is not None:
            return env.get(name) or default
        if name not in env:
            messages.append(f"variable {name} is not set: run  export {name}=...  or write ${{{name}:-default}}")
        return env.get(name, "")

    return _VARIABLE.sub(value_of, text), messages


def protect(text: str) -> str:
    """Write a text so that `expand` gives it back unchanged.

    Example:
        >>> protect("${HOME}"), expand(protect("${HOME}"), {})
        ('$${HOME}', ('${HOME}', []))
    """
    return text.replace("${", "$${")
