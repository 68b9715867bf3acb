"""`adaptkit profile`: what a model costs."""

from typing import TYPE_CHECKING

import click

from .options import batch_sizes_option, debug_option, example, json_option, quiet_option, threads_option
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from adaptkit.report.schema import Figures


@click.command(
    epilog=example("adaptkit profile torchvision:resnet18 --batch-size 1 --batch-size 16"),
    short_help="Measure what a model costs.",
)
@click.argument("model")
@threads_option
@batch_sizes_option
@json_option
@quiet_option
@debug_option
def profile(model: str, threads: tuple[int, ...], batch_sizes: tuple[int, ...], as_json: bool, quiet: bool) -> None:
    """Measure parameters, MACs, bytes, memory, latency and energy of MODEL on ONNX Runtime.

    MODEL is an ONNX file, a run folder, torchvision:NAME, or zoo:NAME.
    """
    from adaptkit.profiling.summary import profile_file
    from adaptkit.specs import ProfileSpec

    with only_results_on_stdout():
        figures = profile_file(model, ProfileSpec(threads=threads, batch_sizes=batch_sizes))
    if as_json:
        print_json(figures.model_dump(mode="json"))
    elif not quiet:
        click.echo(table(_rows(figures)), nl=False)


def _rows(figures: "Figures") -> list[tuple[str, ...]]:
    from adaptkit.report.comparison import setting_label
    from adaptkit.report.numbers import digits, si

    rows: list[tuple[str, ...]] = [
        ("parameters", si(figures.parameters)),
        ("MACs per sample", si(figures.macs)),
        ("file", si(figures.bytes, "B")),
    ]
    for key, latency in figures.latency_ms.items():
        rows.append((f"latency, {setting_label(key)}", f"{digits(latency.p50)} ms (p90 {digits(latency.p90)} ms)"))
    if figures.peak_memory_bytes is not None:
        rows.append(("peak memory", si(figures.peak_memory_bytes, "B")))
    if figures.energy_mj is not None:
        rows.append((f"energy per sample ({figures.energy_method})", f"{digits(figures.energy_mj)} mJ"))
    return rows
