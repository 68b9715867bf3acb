"""`adaptkit evaluate`: how often an artifact is right."""

import click

from .options import data_option_help, debug_option, example, json_option, quiet_option
from .output import only_results_on_stdout, print_json


@click.command(
    epilog=example("adaptkit evaluate runs/digits-edge --data digits"), short_help="Measure an artifact's accuracy."
)
@click.argument("artifact")
@click.option("--data", required=True, metavar="SPEC", help=data_option_help)
@json_option
@quiet_option
@debug_option
def evaluate(artifact: str, data: str, as_json: bool, quiet: bool) -> None:
    """Measure the accuracy of ARTIFACT, a run folder or an ONNX file, over the test split of the data."""
    from adaptkit.report.numbers import percent

    from .accuracy import accuracy_on
    from .artifact import onnx_file

    path = onnx_file(artifact)
    with only_results_on_stdout():
        accuracy, samples = accuracy_on(path, data)
    if as_json:
        print_json({"artifact": str(path), "data": data, "accuracy": accuracy, "samples": samples})
    elif not quiet:
        click.echo(f"{path}: {percent(accuracy)} of {samples} test samples right")
