"""`adaptkit compare`: two artifacts side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    batch_sizes_option,
    debug_option,
    example,
    json_option,
    model_data_option,
    quiet_option,
    threads_option,
)
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptkit.metrics.file import PathAccuracy
    from adaptkit.specs import ProfileSpec


@click.command(
    epilog=example("adaptkit compare runs/digits-edge/baseline.onnx runs/digits-edge --data digits"),
    short_help="Hold two artifacts side by side.",
)
@click.argument("a")
@click.argument("b")
@model_data_option
@threads_option
@batch_sizes_option
@json_option
@quiet_option
@debug_option
def compare(
    a: str,
    b: str,
    data: str | None,
    threads: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare A with B, each a run folder or an ONNX file; latency is measured alternately, A B A B.

    With --data accuracy is measured, too. Where one of the two is conditional, latency is that on real samples.
    """
    from adaptkit.specs import ProfileSpec

    from .artifact import artifact_path

    paths = artifact_path(a), artifact_path(b)
    with only_results_on_stdout():
        found = _measured(paths, ProfileSpec(threads=threads, batch_sizes=batch_sizes), data)
    if as_json:
        print_json(found)
    elif not quiet:
        click.echo(table(_rows(found)), nl=False)
        for number in range(len(found.get("paths", ()))):
            _print_ways(number, found)


def _measured(paths: tuple[Path, Path], profile: "ProfileSpec", data: str | None) -> dict[str, Any]:
    from adaptkit.profiling.artifact import all_parts, model_bytes
    from adaptkit.profiling.latency import compare as compare_latency
    from adaptkit.profiling.parameters import graph_constants

    from .accuracy import accuracy_on
    from .artifact import needs_data

    conditional = [path for path in paths if needs_data(path, data)]
    found: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "bytes": [model_bytes(path) for path in paths],
        "parameters": [sum(graph_constants(part.graph) for part, _ in all_parts(path)) for path in paths],
    }
    seen = [] if data is None else [accuracy_on(path, data) for path in paths]
    if seen:
        found["accuracy"] = [each.accuracy for each in seen]
    if conditional:
        return found | _on_samples(paths, conditional[-1], profile, str(data), seen)
    before, after = compare_latency(paths, profile)
    found["latency_ms"] = [
        {key: latency.model_dump() for key, latency in side.latency_ms.items()} for side in (before, after)
    ]
    return found | {"speedup": {key: ratio.model_dump() for key, ratio in after.speedup.items()}}


def _on_samples(
    paths: tuple[Path, Path], prepared: Path, profile: "ProfileSpec", data: str, seen: "Sequence[PathAccuracy]"
) -> dict[str, Any]:
    """Measure both on the same samples, prepared as one of them takes them."""
    from adaptkit.profiling.artifact import paths_of
    from adaptkit.profiling.sample_latency import compare_on_samples, ratios_of_means

    from .artifact import samples_for

    before, after = compare_on_samples(paths, samples_for(prepared, data), profile)
    sides = zip((before, after), seen, strict=True)
    return {
        "latency_ms": [
            {key: latency.model_dump() for key, latency in side.latency_ms.items()} for side in (before, after)
        ],
        "paths": [paths_of(side, [], each, None).model_dump(mode="json") for side, each in sides],
        "speedup": {key: ratio.model_dump() for key, ratio in ratios_of_means(before, after).items()},
    }


def _print_ways(number: int, found: dict[str, Any]) -> None:
    from adaptkit.report.comparison import PATH_HEADINGS, path_rows
    from adaptkit.report.schema import Paths, Percentiles

    paths = Paths.model_validate(found["paths"][number])
    if len(paths.ways) == 1:
        return
    latency = {key: Percentiles(**each) for key, each in found["latency_ms"][number].items()}
    click.echo(f"\nways through {'AB'[number]}, slowest: {paths.slowest}")
    click.echo(table([PATH_HEADINGS, *path_rows(paths, latency, found["accuracy"][number])]), nl=False)


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    from adaptkit.report.comparison import setting_label, speedup_text
    from adaptkit.report.numbers import digits, percent, points, ratio_of, si, times
    from adaptkit.report.schema import Ratio

    size, count = found["bytes"], found["parameters"]
    rows = [
        ("", "A", "B", "B against A"),
        ("file", *(si(value, "B") for value in size), times(ratio_of(*size), "smaller", "larger")),
        ("parameters", *(si(value) for value in count), times(ratio_of(*count), "fewer", "more")),
    ]
    if "accuracy" in found:
        rows.append(("accuracy", *(percent(value) for value in found["accuracy"]), points(*found["accuracy"])))
    named, *others = ("mean", "p50", "p99") if "paths" in found else ("p50",)
    for key, ratio in found["speedup"].items():
        one, other = (f"{digits(side[key][named])} ms" for side in found["latency_ms"])
        rows.append((f"latency {named}, {setting_label(key)}", one, other, speedup_text(Ratio(**ratio))))
        for which in others:
            one, other = (f"{digits(side[key][which])} ms" for side in found["latency_ms"])
            rows.append((f"  {which}", one, other, ""))
    return rows
