"""`adaptkit validate`: everything that can be known of a recipe without running it."""

import click

from .options import debug_option, example, json_option, quiet_option, recipe_argument, set_option
from .output import print_json


@click.command(epilog=example("adaptkit validate recipe.yaml --set data.batch_size=64"), short_help="Check a recipe.")
@recipe_argument
@set_option
@json_option
@quiet_option
@debug_option
def validate(recipe: str, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Check RECIPE, a file or the name of a shipped recipe, and tell everything that is wrong with it."""
    from adaptkit.recipe import read_recipe

    from .shipped import find_recipe

    path = find_recipe(recipe)
    checked = read_recipe(path, overrides)
    if as_json:
        print_json({"valid": True, "recipe": checked.model_dump(mode="json")})
    elif not quiet:
        names = [*(step.name for step in checked.steps), *(entry.name for entry in checked.conditional)]
        steps = " → ".join(names) or "no steps"
        click.echo(f"{path}: valid ({steps})")
