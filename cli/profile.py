"""`adaptkit profile`: what a model costs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    batch_sizes_option,
    debug_option,
    example,
    html_option,
    json_option,
    model_data_option,
    quiet_option,
    threads_option,
)
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptkit.profiling.named import Sample
    from adaptkit.report.schema import Network, Profile
    from adaptkit.specs import ProfileSpec


@click.command(
    epilog=example("adaptkit profile torchvision:resnet18 --layers --html resnet18.html"),
    short_help="Measure what a model costs.",
)
@click.argument("model")
@click.option("--layers", is_flag=True, help="Measure every layer, too; --html and --json always do.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SHAPE",
    help="Shape of a sample, such as 3x224x224 or 128:int64, once for each input: where a model leaves it open.",
)
@model_data_option
@threads_option
@batch_sizes_option
@html_option
@json_option
@quiet_option
@debug_option
def profile(
    model: str,
    layers: bool,
    inputs: tuple[str, ...],
    data: str | None,
    threads: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    html: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure parameters, MACs, bytes, memory, latency and energy of MODEL on ONNX Runtime.

    MODEL is an ONNX file, a run folder, torchvision:NAME, zoo:NAME, or python:module:function. With --data it runs on
    the samples of the test split, without on random numbers.
    """
    from adaptkit.profiling.named import parse_sample
    from adaptkit.specs import ProfileSpec

    spec = ProfileSpec(threads=threads, batch_sizes=batch_sizes)
    samples = [parse_sample(text) for text in inputs]
    with only_results_on_stdout():
        found = _measured(model, spec, data, samples, layers or as_json or html is not None)
    if html is not None:
        from adaptkit.files import write_atomically
        from adaptkit.report.page import render_profile

        write_atomically(Path(html), render_profile(found))
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif not quiet:
        _print(found)


def _measured(
    model: str, spec: "ProfileSpec", data: str | None, samples: "Sequence[Sample]", layers: bool
) -> "Profile":
    from adaptkit.errors import DataError
    from adaptkit.profiling import summary

    from .artifact import artifact_path, needs_data

    if data is None and not (Path(model).exists() and needs_data(artifact_path(model), data)):
        return summary.profile_file(model, spec, layers=layers, samples=samples)
    if samples:
        raise DataError("--input is for random samples, and --data gives real ones: leave one of them out")
    path = artifact_path(model)
    found = _on_samples(path, model, str(data), spec)
    return summary.with_layers(found, path, spec) if layers else found


def _on_samples(path: Path, model: str, data: str, profile: "ProfileSpec") -> "Profile":
    """Measure a model on real samples, beside the baseline where a run has left one."""
    from adaptkit.metrics.file import figures_of
    from adaptkit.profiling.artifact import all_parts, artifact_figures
    from adaptkit.report.schema import Profile

    from .accuracy import score_on
    from .artifact import samples_for

    baseline = (path if path.is_dir() else path.parent) / "baseline.onnx"
    compared = [baseline] if baseline.is_file() and baseline != path else []
    seen = score_on(path, data)
    found, _ = artifact_figures(path, all_parts(path), compared, samples_for(path, data), profile, seen)
    return Profile(model=model, **(dict(found) | figures_of(seen)))


def _print(found: "Profile") -> None:
    from adaptkit.report.comparison import PATH_HEADINGS, path_rows
    from adaptkit.report.profile_rows import figure_rows, machine_summary

    click.echo(table(figure_rows(found)), nl=False)
    if found.paths is not None and len(found.paths.ways) > 1:
        click.echo(table([PATH_HEADINGS, *path_rows(found.paths, found.latency_ms, found.accuracy)]), nl=False)
        click.echo(f"slowest way: {found.paths.slowest}")
    for network in found.networks:
        _print_network(network)
    if found.machine is not None:
        click.echo(f"\n{machine_summary(found.machine)}")


def _print_network(network: "Network") -> None:
    from adaptkit.report.profile_rows import LAYER_HEADINGS, layer_row, network_summary

    click.echo(f"\n{network_summary(network)}")
    # What is said about a layer is longer than the rest, and comes last, to the left.
    rows = [(LAYER_HEADINGS, ""), *((layer_row(layer), layer.reason) for layer in network.layers)]
    lines = table([row[:-1] for row, _ in rows]).splitlines()
    for line, (_, reason) in zip(lines, rows, strict=True):
        click.echo(f"{line}  {reason}".rstrip())
