"""A hook of mkdocs: tables of settings are made from the classes, so that no page can drift from them.

In a page, `<!-- settings: module:Class -->` becomes a table of that class's settings, `<!-- include: FILE -->` the text
of a file of the repository, `<!-- techniques -->` a section for every technique there is, `<!-- conditional -->` one
for every kind of conditional computation, and `<!-- studies -->` one for every study.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from adaptkit.conditionals import CONDITIONALS
from adaptkit.studies import STUDIES
from adaptkit.techniques import TECHNIQUES
from adaptkit_cli.settings import settings_of

_ROOT = Path(__file__).parent.parent
_SETTINGS = re.compile(r"<!-- settings: ([\w.]+):(\w+) -->")
_INCLUDE = re.compile(r"<!-- include: ([\w./-]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page; mkdocs calls this with the text of every page."""
    markdown = markdown.replace("<!-- techniques -->", sections(TECHNIQUES))
    markdown = markdown.replace("<!-- conditional -->", sections(CONDITIONALS))
    markdown = markdown.replace("<!-- studies -->", sections(STUDIES))
    with_files = _INCLUDE.sub(lambda mark: (_ROOT / mark[1]).read_text(encoding="utf-8"), markdown)
    return _SETTINGS.sub(lambda mark: settings_table(mark[1], mark[2]), with_files)


def sections(table: Mapping[str, type[BaseModel]]) -> str:
    """Write the docstring and the settings of everything in a table."""
    written = []
    for name, kind in table.items():
        place = f"{kind.__module__}:{kind.__name__}"
        written += [f"## `{name}`", f"::: {place.replace(':', '.')}", f"<!-- settings: {place} -->"]
    return "\n\n".join(written)


def settings_table(module: str, name: str) -> str:
    """Write the settings of a class as a table in Markdown."""
    lines = ["| key | type and default | meaning |", "|---|---|---|"]
    for setting in settings_of(getattr(import_module(module), name)):
        kind, _, rest = setting.text.partition("; ")
        default, _, meaning = rest.partition(". ")
        cells = [f"`{setting.key}`", f"{kind}; {default.removesuffix('.')}", meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
