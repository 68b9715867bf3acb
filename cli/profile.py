"""`adaptkit profile`: what a model costs."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    from adaptkit.report.schema import Figures, Paths
    from adaptkit.specs import ProfileSpec


@click.command(
    epilog=example("adaptkit profile torchvision:resnet18 --batch-size 1 --batch-size 16"),
    short_help="Measure what a model costs.",
)
@click.argument("model")
@model_data_option
@threads_option
@batch_sizes_option
@json_option
@quiet_option
@debug_option
def profile(
    model: str, data: str | None, threads: tuple[int, ...], batch_sizes: tuple[int, ...], as_json: bool, quiet: bool
) -> None:
    """Measure parameters, MACs, bytes, memory, latency and energy of MODEL on ONNX Runtime.

    MODEL is an ONNX file, a run folder, torchvision:NAME, or zoo:NAME. With --data it runs on the samples of the test
    split, without on random numbers.
    """
    from adaptkit.profiling.summary import profile_file
    from adaptkit.specs import ProfileSpec

    from .artifact import artifact_path, needs_data

    spec = ProfileSpec(threads=threads, batch_sizes=batch_sizes)
    with only_results_on_stdout():
        if data is not None or (Path(model).exists() and needs_data(artifact_path(model), data)):
            figures = _on_samples(artifact_path(model), str(data), spec)
        else:
            figures = profile_file(model, spec)
    if as_json:
        print_json(figures.model_dump(mode="json"))
    elif not quiet:
        click.echo(table(_rows(figures)), nl=False)
        if figures.paths is not None and len(figures.paths.ways) > 1:
            _print_ways(figures, figures.paths)


def _on_samples(path: Path, data: str, profile: "ProfileSpec") -> "Figures":
    """Measure a model on real samples, beside the baseline where a run has left one."""
    from adaptkit.profiling.artifact import all_parts, artifact_figures

    from .accuracy import accuracy_on
    from .artifact import samples_for

    baseline = (path if path.is_dir() else path.parent) / "baseline.onnx"
    compared = [baseline] if baseline.is_file() and baseline != path else []
    seen = accuracy_on(path, data)
    found, _ = artifact_figures(path, all_parts(path), compared, samples_for(path, data), profile, seen)
    return found.model_copy(update={"accuracy": seen.accuracy})


def _print_ways(figures: "Figures", paths: "Paths") -> None:
    from adaptkit.report.comparison import PATH_HEADINGS, path_rows

    click.echo(table([PATH_HEADINGS, *path_rows(paths, figures.latency_ms, figures.accuracy)]), nl=False)
    click.echo(f"slowest way: {paths.slowest}")


def _rows(figures: "Figures") -> list[tuple[str, ...]]:
    from adaptkit.report.comparison import setting_label, speedup_text
    from adaptkit.report.numbers import digits, si

    rows: list[tuple[str, ...]] = [
        ("parameters", si(figures.parameters)),
        ("MACs per sample" + (" on the longest way" if figures.paths is not None else ""), si(figures.macs)),
        ("file", si(figures.bytes, "B")),
    ]
    for key, latency in figures.latency_ms.items():
        usual = "" if latency.mean is None else f"mean {digits(latency.mean)} ms, p50 "
        rest = f"p90 {digits(latency.p90)} ms" if latency.mean is None else f"p99 {digits(latency.p99)} ms"
        rows.append((f"latency, {setting_label(key)}", f"{usual}{digits(latency.p50)} ms ({rest})"))
        if latency.mean is not None and key in figures.speedup:
            rows.append(("  against the baseline", speedup_text(figures.speedup[key])))
    if figures.peak_memory_bytes is not None:
        rows.append(("peak memory", si(figures.peak_memory_bytes, "B")))
    if figures.energy_mj is not None:
        rows.append((f"energy per sample ({figures.energy_method})", f"{digits(figures.energy_mj)} mJ"))
    return rows
