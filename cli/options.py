"""Options and arguments that several commands share."""

import click


def example(command: str) -> str:
    """Write the example that ends the help of a command, on a line of its own that can be copied."""
    return f"\b\nExample:\n  {command}"


recipe_argument = click.argument("recipe", metavar="RECIPE")

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Replace a value of the recipe, such as steps.0.macs=0.4; may be given several times.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit code tells.")

debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")

data_option_help = "digits, npz:FILE, imagefolder:PATH, torchvision:NAME, or a recipe whose data is used."

model_data_option = click.option(
    "--data", metavar="SPEC", help=f"Real samples, which a conditional model needs: {data_option_help}"
)

threads_option = click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1,),
    metavar="N",
    help="Threads, 1 by default; may be given several times.",
)

batch_sizes_option = click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1,),
    metavar="N",
    help="Samples in one call, 1 by default; may be given several times.",
)

html_option = click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a page that loads nothing, with the charts, to this file.",
)
