"""`adaptkit techniques`: what a step or a conditional entry of a recipe can be, made from the classes themselves."""

import inspect
import re
from typing import TYPE_CHECKING

import click

from .options import debug_option, example, json_option
from .output import print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


@click.group(short_help="List and explain the techniques.")
def techniques() -> None:
    """List and explain the techniques a recipe can use."""


@techniques.command("list", epilog=example("adaptkit techniques list"))
@json_option
@debug_option
def list_techniques(as_json: bool) -> None:
    """List the techniques, and the kinds of conditional computation, a sentence each."""
    tables = {
        section: {name: _first_sentence(kind) for name, kind in table.items()} for section, table in _tables().items()
    }
    if as_json:
        print_json(tables)
        return
    texts = []
    for section, summaries in tables.items():
        formatter = click.get_current_context().make_formatter()
        formatter.write_dl(list(summaries.items()))
        texts.append(f"{section}:\n{formatter.getvalue()}")
    click.echo("\n".join(texts), nl=False)


@techniques.command(epilog=example("adaptkit techniques show prune.structured"))
@click.argument("name")
@json_option
@debug_option
def show(name: str, as_json: bool) -> None:
    """Explain NAME, a technique or a kind of conditional computation: what it does, and each of its settings."""
    from adaptkit.errors import AdaptkitError
    from adaptkit.reading.problem import hint

    from .settings import settings_of

    known = {name: kind for table in _tables().values() for name, kind in table.items()}
    if name not in known:
        raise AdaptkitError(f"{name}: no technique of that name{hint(name, known)}")
    technique = known[name]
    if as_json:
        print_json(technique.model_json_schema())
        return
    formatter = click.get_current_context().make_formatter()
    formatter.write_dl([(setting.key, setting.text) for setting in settings_of(technique)])
    needs = ", ".join(sorted(getattr(technique, "needs", ())))
    click.echo(f"{name}\n\n{inspect.cleandoc(technique.__doc__ or '')}\n")
    click.echo(f"Needs: {needs}\n\nSettings:" if needs else "Settings:")
    click.echo(formatter.getvalue(), nl=False)


def _tables() -> "dict[str, Mapping[str, type[BaseModel]]]":
    """Give what a recipe can name, by the list it stands in."""
    from adaptkit import conditionals, techniques

    return {"steps": techniques.TECHNIQUES, "conditional": conditionals.CONDITIONALS}


def _first_sentence(technique: "type[BaseModel]") -> str:
    paragraph = inspect.cleandoc(technique.__doc__ or "").split("\n\n")[0]
    return re.split(r"(?<=\.)\s", " ".join(paragraph.split()))[0]
