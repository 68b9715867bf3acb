"""`adaptkit evaluate`: how often an artifact is right."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import data_option_help, debug_option, example, json_option, quiet_option
from .output import only_results_on_stdout, print_json
from .table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptkit.loading.data import Data
    from adaptkit.metrics.file import PathAccuracy
    from adaptkit.profiling.sample_latency import SampleComparison
    from adaptkit.report.schema import MetricValue, Paths
    from adaptkit.runtime import AdaptedModel
    from adaptkit.studies import Asked


@click.command(
    epilog=example("adaptkit evaluate runs/digits-edge --data digits --metrics top5,f1,ece"),
    short_help="Measure an artifact's accuracy.",
)
@click.argument("artifact")
@click.option("--data", required=True, metavar="SPEC", help=data_option_help)
@click.option(
    "--metrics",
    default="",
    metavar="NAMES",
    help="Further metrics with their 95 % intervals, such as top5,f1,ece, or 'corruptions: {samples: 200}' with "
    "settings; a wrong name lists all there are.",
)
@json_option
@quiet_option
@debug_option
def evaluate(artifact: str, data: str, metrics: str, as_json: bool, quiet: bool) -> None:
    """Measure the accuracy of ARTIFACT, a run folder or an ONNX file, over the test split of the data.

    Of a conditional model the ways that samples took are shown, too.
    """
    from adaptkit.reading.metrics import parse_metrics

    from .artifact import artifact_path

    asked = parse_metrics(metrics)
    path = artifact_path(artifact)
    with only_results_on_stdout():
        found = _evaluated(path, data, asked)
    if as_json:
        print_json({"artifact": str(path), "data": data} | found.document())
    elif not quiet:
        click.echo(f"{path}: {found.text()}", nl=False)


_OF_NUMBERS = ("r2", "rmse", "mae")
"""Measured where targets are numbers and nothing is asked for."""


@dataclass(frozen=True)
class _Evaluation:
    """What was found; no accuracy where the model gives numbers and no classes."""

    samples: int
    accuracy: float | None
    metrics: "dict[str, MetricValue]"
    ways: "tuple[Paths, SampleComparison] | None"

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"accuracy": self.accuracy, "samples": self.samples}
        if self.metrics:
            found["metrics"] = {name: each.model_dump(mode="json") for name, each in self.metrics.items()}
        return found | ({"paths": self.ways[0].model_dump(mode="json")} if self.ways else {})

    def text(self) -> str:
        from adaptkit.report.comparison import METRIC_HEADINGS, PATH_HEADINGS, metric_rows, path_rows, path_summary
        from adaptkit.report.numbers import percent

        right = "" if self.accuracy is None else f"{percent(self.accuracy)} of "
        parts = [f"{right}{self.samples} test samples{' right' if right else ''}\n"]
        if self.metrics:
            parts.append(table([METRIC_HEADINGS, *metric_rows(self.metrics)]))
        if self.ways:
            paths, own = self.ways
            parts.append(table([PATH_HEADINGS, *path_rows(paths, own.latency_ms, self.accuracy)]))
            parts += [f"{line}\n" for line in path_summary(paths)]
        return "".join(parts)


def _evaluated(path: Path, data: str, asked: "Sequence[Asked]") -> _Evaluation:
    from adaptkit.metrics.file import file_outputs, gives_numbers, path_accuracy
    from adaptkit.metrics.measured import Outputs
    from adaptkit.metrics.registry import METRICS
    from adaptkit.runtime import AdaptedModel
    from adaptkit.studies import metrics_of

    from .artifact import data_for

    model, splits, names = AdaptedModel.load(path), data_for(path, data), metrics_of(asked)
    of_another_task = bool(names) and all(METRICS[name].of_another_task for name in names)
    if splits.has_numbers and not names:
        names = list(_OF_NUMBERS)
    if of_another_task or splits.has_numbers or (names and gives_numbers(model)):
        measured = file_outputs(model, splits.test).measure(names)
        measured |= _studied(path, model, splits, asked)
        return _Evaluation(splits.test.num_samples, None, measured, None)
    outputs = Outputs()
    seen = path_accuracy(model, splits.test, *([outputs] if names else []))
    measured = outputs.measure(names) if names else {}
    measured |= _studied(path, model, splits, asked)
    return _Evaluation(seen.samples, seen.accuracy, measured, _ways(path, data, seen))


def _studied(path: Path, model: "AdaptedModel", splits: "Data", asked: "Sequence[Asked]") -> "dict[str, MetricValue]":
    """Run the studies among what is asked."""
    from adaptkit.loading.behind import network_behind
    from adaptkit.studies import studies_of
    from adaptkit.study.base import measure_all
    from adaptkit.study.subject import Subject

    classes = len(model.labels) or None
    return measure_all(studies_of(asked), Subject(path, model, splits, lambda: network_behind(path, classes)))


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
