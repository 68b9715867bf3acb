"""`adaptkit techniques`: what a step of a recipe can be, made from the classes themselves."""

import inspect
import re
from typing import TYPE_CHECKING

import click

from .options import debug_option, example, json_option
from .output import print_json

if TYPE_CHECKING:
    from adaptkit.technique import Technique


@click.group(short_help="List and explain the techniques.")
def techniques() -> None:
    """List and explain the techniques a recipe can use."""


@techniques.command("list", epilog=example("adaptkit techniques list"))
@json_option
@debug_option
def list_techniques(as_json: bool) -> None:
    """List the techniques, a sentence each."""
    from adaptkit.techniques import TECHNIQUES

    summaries = {name: _first_sentence(technique) for name, technique in TECHNIQUES.items()}
    if as_json:
        print_json(summaries)
        return
    formatter = click.get_current_context().make_formatter()
    formatter.write_dl(list(summaries.items()))
    click.echo(inspect.cleandoc(formatter.getvalue()))


@techniques.command(epilog=example("adaptkit techniques show prune.structured"))
@click.argument("name")
@json_option
@debug_option
def show(name: str, as_json: bool) -> None:
    """Explain the technique NAME: what it does, and each of its settings with its default."""
    from adaptkit.errors import AdaptkitError
    from adaptkit.reading.problem import hint
    from adaptkit.techniques import TECHNIQUES

    from .settings import settings_of

    if name not in TECHNIQUES:
        raise AdaptkitError(f"{name}: no technique of that name{hint(name, TECHNIQUES)}")
    technique = TECHNIQUES[name]
    if as_json:
        print_json(technique.model_json_schema())
        return
    formatter = click.get_current_context().make_formatter()
    formatter.write_dl([(setting.key, setting.text) for setting in settings_of(technique)])
    needs = ", ".join(sorted(technique.needs))
    click.echo(f"{name}\n\n{inspect.cleandoc(technique.__doc__ or '')}\n")
    click.echo(f"Needs: {needs}\n\nSettings:" if needs else "Settings:")
    click.echo(formatter.getvalue(), nl=False)


def _first_sentence(technique: "type[Technique]") -> str:
    paragraph = inspect.cleandoc(technique.__doc__ or "").split("\n\n")[0]
    return re.split(r"(?<=\.)\s", " ".join(paragraph.split()))[0]
