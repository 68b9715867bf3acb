"""`adaptkit evaluate`: how often an artifact is right."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import data_option_help, debug_option, example, json_option, quiet_option
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from adaptkit.metrics.file import PathAccuracy
    from adaptkit.profiling.sample_latency import SampleComparison
    from adaptkit.report.schema import Paths


@click.command(
    epilog=example("adaptkit evaluate runs/digits-edge --data digits"), short_help="Measure an artifact's accuracy."
)
@click.argument("artifact")
@click.option("--data", required=True, metavar="SPEC", help=data_option_help)
@json_option
@quiet_option
@debug_option
def evaluate(artifact: str, data: str, as_json: bool, quiet: bool) -> None:
    """Measure the accuracy of ARTIFACT, a run folder or an ONNX file, over the test split of the data.

    Of a conditional model the ways that samples took are shown, too.
    """
    from adaptkit.report.comparison import PATH_HEADINGS, path_rows, path_summary
    from adaptkit.report.numbers import percent

    from .accuracy import accuracy_on
    from .artifact import artifact_path

    path = artifact_path(artifact)
    with only_results_on_stdout():
        seen = accuracy_on(path, data)
        ways = _ways(path, data, seen)
    found = {"artifact": str(path), "data": data, "accuracy": seen.accuracy, "samples": seen.samples}
    if as_json:
        print_json(found | ({"paths": ways[0].model_dump(mode="json")} if ways else {}))
    elif not quiet:
        click.echo(f"{path}: {percent(seen.accuracy)} of {seen.samples} test samples right")
        if ways:
            paths, own = ways
            click.echo(table([PATH_HEADINGS, *path_rows(paths, own.latency_ms, seen.accuracy)]), nl=False)
            click.echo("\n".join(path_summary(paths)))


def _ways(path: Path, data: str, seen: "PathAccuracy") -> "tuple[Paths, SampleComparison] | None":
    """Time a conditional model on one thread, a sample at a time."""
    from adaptkit.profiling.artifact import is_conditional, paths_of
    from adaptkit.profiling.sample_latency import compare_on_samples
    from adaptkit.specs import ProfileSpec

    from .artifact import samples_for

    if not is_conditional(path):
        return None
    (own,) = compare_on_samples([path], samples_for(path, data), ProfileSpec())
    return paths_of(own, [], seen, None), own
