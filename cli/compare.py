"""`adaptkit compare`: artifacts side by side."""

import itertools
import string
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

    from adaptkit.metrics.file import PathAccuracy
    from adaptkit.metrics.measured import Outputs
    from adaptkit.profiling.energy import Energy
    from adaptkit.report.schema import Contender, SideBySide
    from adaptkit.specs import ProfileSpec

    Answers = tuple[PathAccuracy | None, Outputs]


@click.command(
    epilog=example("adaptkit compare runs/digits-edge/baseline.onnx runs/digits-edge --data digits --html pareto.html"),
    short_help="Hold artifacts side by side.",
)
@click.argument("artifacts", nargs=-1, metavar="A B ...")
@model_data_option
@click.option(
    "--metrics",
    default="",
    metavar="NAMES",
    help="Further metrics on the data, such as f1,ece, each difference with its 95 % interval.",
)
@threads_option
@batch_sizes_option
@html_option
@json_option
@quiet_option
@debug_option
def compare(
    artifacts: tuple[str, ...],
    data: str | None,
    metrics: str,
    threads: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    html: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare two artifacts or more, each a run folder or an ONNX file; latency is measured alternately, A B A B.

    With --data accuracy is measured on the same samples, with an interval of the difference and McNemar's exact test.
    Where one of them is conditional, latency is that on real samples.
    """
    from adaptkit.specs import ProfileSpec

    from .artifact import artifact_path

    if not 2 <= len(artifacts) <= len(string.ascii_uppercase):
        raise click.UsageError(f"give two artifacts or more, at most {len(string.ascii_uppercase)}")
    names = _names(metrics, data)
    paths = [artifact_path(text) for text in artifacts]
    with only_results_on_stdout():
        found = _measured(paths, ProfileSpec(threads=threads, batch_sizes=batch_sizes), data, names)
    if html is not None:
        from adaptkit.files import write_atomically
        from adaptkit.report.page import render_side_by_side

        write_atomically(Path(html), render_side_by_side(found))
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif not quiet:
        _print(found)


def _names(metrics: str, data: str | None) -> list[str]:
    """Read what is to be measured besides accuracy: metrics of the answers to the same samples, no studies."""
    from adaptkit.errors import DataError
    from adaptkit.reading.metrics import parse_metrics
    from adaptkit.studies import metrics_of, studies_of

    asked = parse_metrics(metrics)
    for study in studies_of(asked):
        raise DataError(f"{study.name} is a study, which compare does not pair: run adaptkit evaluate on each")
    if asked and data is None:
        raise DataError("metrics are of answers to data: give --data, such as --data digits")
    return metrics_of(asked)


def _measured(
    paths: "Sequence[Path]", profile: "ProfileSpec", data: str | None, names: "Sequence[str]"
) -> "SideBySide":
    from adaptkit.profiling.latency import compare as compare_latency
    from adaptkit.report.dominance import verdict
    from adaptkit.report.schema import SideBySide

    from .artifact import needs_data

    conditional = [path for path in paths if needs_data(path, data)]
    answers = [_answers(path, data) for path in paths]
    seen, outputs = [own for own, _ in answers], [given for _, given in answers]
    names = names or (["r2"] if data is not None and seen[0] is None else [])
    sizes = [_sized(number, path) for number, path in enumerate(paths)]
    if conditional:
        contenders = _on_samples(sizes, paths, conditional[-1], profile, str(data), seen)
    else:
        sides = compare_latency(paths, profile)
        contenders = [
            one.model_copy(update={"latency_ms": side.latency_ms, "speedup": side.speedup})
            for one, side in zip(sizes, sides, strict=True)
        ]
    contenders = [_with_accuracy(one, own, seen[0]) for one, own in zip(contenders, seen, strict=True)]
    if names:
        contenders = [_with_metrics(one, own, outputs[0], names) for one, own in zip(contenders, outputs, strict=True)]
    energies = _energies(paths, profile.threads[0], conditional)
    contenders = [
        one.model_copy(update={"energy_mj": None if energy is None else energy.millijoules})
        for one, energy in zip(contenders, energies, strict=True)
    ]
    method = next((energy.method for energy in energies if energy is not None), None)
    alike = _alike([one.label for one in contenders], answers)
    return SideBySide(contenders=contenders, energy_method=method, verdict=verdict(contenders, alike))


def _answers(path: Path, data: str | None) -> "Answers":
    """Ask a model."""
    from adaptkit.metrics.measured import Outputs

    from .accuracy import answers_on

    return (None, Outputs()) if data is None else answers_on(path, data)


def _alike(labels: "Sequence[str]", answers: "Sequence[Answers]") -> "set[frozenset[str]]":
    """Name the pairs between which no difference is shown: one sample more is no better model."""
    pairs = itertools.combinations(zip(labels, answers, strict=True), 2)
    return {frozenset((one, other)) for (one, mine), (other, theirs) in pairs if not _apart(mine, theirs)}


def _apart(mine: "Answers", theirs: "Answers") -> bool:
    """Say whether McNemar's test tells two models apart, or the interval of R² where they give numbers."""
    from adaptkit.metrics.paired import difference, mcnemar_exact
    from adaptkit.report.comparison import PROVEN

    (own, given), (other, answered) = mine, theirs
    if own is not None and other is not None:
        found = difference(own.hits, other.hits)
        return mcnemar_exact(found.lost, found.gained) < PROVEN
    if not given.target or own is not other:
        return True
    apart = answered.measure_against(["r2"], given)["r2"]
    return apart.low is not None and apart.high is not None and not apart.low <= 0 <= apart.high


def _sized(number: int, path: Path) -> "Contender":
    from adaptkit.profiling.artifact import model_bytes, onnx_files
    from adaptkit.profiling.summary import count_constants
    from adaptkit.report.schema import Contender

    return Contender(
        label=string.ascii_uppercase[number],
        file=str(path),
        parameters=sum(count_constants(file) for file in onnx_files(path)),
        bytes=model_bytes(path),
        latency_ms={},
        speedup={},
    )


def _on_samples(
    sizes: "Sequence[Contender]",
    paths: "Sequence[Path]",
    prepared: Path,
    profile: "ProfileSpec",
    data: str,
    seen: "Sequence[PathAccuracy | None]",
) -> "list[Contender]":
    """Measure all on the same samples, prepared as one of them takes them."""
    from adaptkit.profiling.artifact import paths_of
    from adaptkit.profiling.sample_latency import compare_on_samples, ratios_of_means

    from .artifact import samples_for

    sides = compare_on_samples(paths, samples_for(prepared, data), profile)
    return [
        one.model_copy(
            update={
                "latency_ms": side.latency_ms,
                "speedup": ratios_of_means(sides[0], side),
                "paths": None if own is None else paths_of(side, [], own, None),
            }
        )
        for one, side, own in zip(sizes, sides, seen, strict=True)
    ]


def _with_accuracy(one: "Contender", own: "PathAccuracy | None", first: "PathAccuracy | None") -> "Contender":
    if own is None or first is None:
        return one
    from adaptkit.metrics.paired import compare_hits

    against = None if own is first else compare_hits(first.hits, own.hits)
    return one.model_copy(update={"accuracy": own.accuracy, "against_first": against})


def _with_metrics(one: "Contender", own: "Outputs", first: "Outputs", names: "Sequence[str]") -> "Contender":
    against = {} if own is first else own.measure_against(names, first)
    return one.model_copy(update={"metrics": own.measure(names), "metrics_against_first": against})


def _energies(paths: "Sequence[Path]", threads: int, conditional: "Sequence[Path]") -> "list[Energy | None]":
    """Measure the energy of those that are not conditional; all by one method, since a machine has a counter or not."""
    from adaptkit.profiling.energy import energy_per_inference

    return [None if path in conditional else energy_per_inference(path, threads=threads) for path in paths]


def _print(found: "SideBySide") -> None:
    from adaptkit.report.side_by_side import accuracy_lines, side_by_side_rows, way_tables

    click.echo(table(side_by_side_rows(found)), nl=False)
    for title, rows in way_tables(found):
        click.echo(f"\n{title}")
        click.echo(table(rows), nl=False)
    click.echo("")
    for line in [*accuracy_lines(found), found.verdict]:
        click.echo(line)
