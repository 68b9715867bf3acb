"""`adaptkit compare`: two artifacts side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    batch_sizes_option,
    data_option_help,
    debug_option,
    example,
    json_option,
    quiet_option,
    threads_option,
)
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from adaptkit.specs import ProfileSpec


@click.command(
    epilog=example("adaptkit compare runs/digits-edge/baseline.onnx runs/digits-edge --data digits"),
    short_help="Hold two artifacts side by side.",
)
@click.argument("a")
@click.argument("b")
@click.option("--data", metavar="SPEC", help=f"Measure accuracy too, on: {data_option_help}")
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
    """Compare A with B, each a run folder or an ONNX file; latency is measured alternately, A B A B."""
    from adaptkit.specs import ProfileSpec

    from .artifact import onnx_file

    paths = onnx_file(a), onnx_file(b)
    with only_results_on_stdout():
        found = _measured(paths, ProfileSpec(threads=threads, batch_sizes=batch_sizes), data)
    if as_json:
        print_json(found)
    elif not quiet:
        click.echo(table(_rows(found)), nl=False)


def _measured(paths: tuple[Path, Path], profile: "ProfileSpec", data: str | None) -> dict[str, Any]:
    from adaptkit.export.files import file_bytes
    from adaptkit.profiling.latency import compare as compare_latency
    from adaptkit.profiling.summary import count_constants

    from .accuracy import accuracy_on

    found: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "bytes": [file_bytes(path) for path in paths],
        "parameters": [count_constants(path) for path in paths],
    }
    if data is not None:
        found["accuracy"] = [accuracy_on(path, data)[0] for path in paths]
    before, after = compare_latency(paths, profile)
    found["latency_ms"] = [
        {key: latency.model_dump() for key, latency in side.latency_ms.items()} for side in (before, after)
    ]
    return found | {"speedup": {key: ratio.model_dump() for key, ratio in after.speedup.items()}}


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
    for key, ratio in found["speedup"].items():
        one, other = (f"{digits(side[key]['p50'])} ms" for side in found["latency_ms"])
        rows.append((f"latency p50, {setting_label(key)}", one, other, speedup_text(Ratio(**ratio))))
    return rows
