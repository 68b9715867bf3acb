"""`adaptkit recipes`: the recipes that come with adaptkit, and the schema of recipes."""

from pathlib import Path

import click

from adaptkit.errors import AdaptkitError

from .options import debug_option, example, json_option
from .output import print_json
from .shipped import find_shipped, shipped_recipes


@click.group(short_help="List, show and copy the shipped recipes.")
def recipes() -> None:
    """List, show and copy the recipes that come with adaptkit; print the JSON schema of recipes."""


@recipes.command("list", epilog=example("adaptkit recipes list"))
@json_option
@debug_option
def list_recipes(as_json: bool) -> None:
    """List the shipped recipes and what each is for."""
    summaries = {name: _summary(path) for name, path in shipped_recipes().items()}
    if as_json:
        print_json(summaries)
        return
    width = max(map(len, summaries), default=0)
    for name, summary in summaries.items():
        click.echo(f"{name:{width}}  {summary}".rstrip())


def _summary(path: Path) -> str:
    """Return the comment that a recipe begins with, up to its first full stop."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(". ")[0].rstrip(".")


@recipes.command(epilog=example("adaptkit recipes show digits-edge"))
@click.argument("name")
@debug_option
def show(name: str) -> None:
    """Print the shipped recipe NAME."""
    click.echo(find_shipped(name).read_text(encoding="utf-8"), nl=False)


@recipes.command(
    epilog=example("adaptkit recipes copy digits-edge my-recipe.yaml"), short_help="Copy a shipped recipe, to edit it."
)
@click.argument("name")
@click.argument("destination", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@debug_option
def copy(name: str, destination: Path | None, force: bool) -> None:
    """Copy the shipped recipe NAME to DESTINATION (a file or folder; the current folder by default), to edit it."""
    source = find_shipped(name)
    target = destination or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists() and not force:
        raise AdaptkitError(f"{target} is there already: give another name, or --force to replace it")
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise AdaptkitError(f"cannot write {target}: {error.strerror}") from None
    click.echo(f"{target} written: edit it, then run  adaptkit compress {target}")


@recipes.command(
    epilog=example("adaptkit recipes schema > recipe.schema.json"), short_help="Print the JSON schema of recipes."
)
@debug_option
def schema() -> None:
    """Print the JSON schema of recipes, for editors that complete and check YAML."""
    from adaptkit.reading.schema import recipe_schema

    print_json(recipe_schema())
