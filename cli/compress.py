"""`adaptkit compress`: the main job."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptkit.errors import GateFailed

from .options import debug_option, example, json_option, quiet_option, recipe_argument, set_option
from .output import InterruptedByUserError, only_results_on_stdout

if TYPE_CHECKING:
    from adaptkit.report.schema import Report


@click.command(
    epilog=example("adaptkit compress digits-edge --set steps.0.macs=0.4 --output runs/smaller"),
    short_help="Run a recipe.",
)
@recipe_argument
@click.option("--output", type=click.Path(path_type=Path), help="The run folder.  [default: runs/<name of the recipe>]")
@set_option
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; it ends in the same files.")
@json_option
@quiet_option
@debug_option
def compress(
    recipe: str, output: Path | None, overrides: tuple[str, ...], resume: bool, as_json: bool, quiet: bool
) -> None:
    """Compress a model as RECIPE says, export it, prove it and measure it.

    RECIPE is a file, the lock file of an earlier run, or the name of a shipped recipe.
    """
    from adaptkit.pipeline import compress as run_recipe
    from adaptkit.recipe import read_recipe

    from .shipped import find_recipe

    wanted = read_recipe(find_recipe(recipe), overrides)
    folder = output or Path("runs") / wanted.name
    show = None if quiet else _show
    try:
        with only_results_on_stdout():
            report = run_recipe(wanted, folder, resume=resume, show=show, progress=not quiet)
    except KeyboardInterrupt:
        raise InterruptedByUserError(f"Interrupted. To go on:  {_resume_command(recipe, folder, overrides)}") from None
    except GateFailed as failure:
        _print_report(failure.report, folder, as_json, quiet)
        click.echo(f"Error: {failure}", err=True)
        click.get_current_context().exit(failure.exit_code)
    _print_report(report, folder, as_json, quiet)


def _show(text: str) -> None:
    click.echo(text, err=True)


def _resume_command(recipe: str, folder: Path, overrides: tuple[str, ...]) -> str:
    options = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["adaptkit", "compress", recipe, "--output", str(folder), *options, "--resume"])


def _print_report(report: "Report", folder: Path, as_json: bool, quiet: bool) -> None:
    from adaptkit.report.text import render

    if as_json:
        click.echo(report.model_dump_json(indent=2))
    elif not quiet:
        click.echo(render(report, folder), nl=False)
