"""The report as one HTML file that loads nothing: styles, script and charts are inside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adaptkit.report import comparison, numbers
from adaptkit.report.charts import error_chart
from adaptkit.report.pictures import pictures
from adaptkit.report.schema import Figures, Layer, Report
from adaptkit.report.verdict import headline, verdict

_METHODS = {
    "rapl": "read from the energy counter of the processor",
    "nvml": "read from the energy counter of the graphics card",
    "estimate": "an estimate from a model of the machine, not a measurement",
}


def render(report: Report) -> str:
    """Write the whole report as one self-contained HTML page."""
    environment = Environment(
        loader=PackageLoader("adaptkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = (numbers.digits, numbers.si, numbers.percent, numbers.points, numbers.duration, numbers.times)
    environment.filters.update({helper.__name__: helper for helper in helpers})
    environment.filters["plain"] = _plain
    environment.filters["setting"] = comparison.setting_label
    environment.filters["speedup"] = comparison.speedup_text
    models = [("before", report.baseline), ("after", report.final)]
    split, accuracies = comparison.step_accuracies(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        verdict=verdict(report),
        headline=headline(report),
        pictures=pictures(report),
        rows=comparison.comparison(report),
        split=split,
        steps=list(zip(report.steps, accuracies[1:], strict=True)),
        layers=_layer_rows(report.layers),
        behind=comparison.slow_to_gain(report.layers),
        gates=[(gate, *comparison.gate_values(gate)) for gate in report.gates],
        errors=_errors(report),
        energy=models,
        method_text=_METHODS,
        metrics=[(name, comparison.metric_rows(figures.metrics)) for name, figures in models if figures.metrics],
        path_headings=comparison.PATH_HEADINGS[1:],
        ways=_ways(report.final),
        ratio=numbers.ratio_of,
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _errors(report: Report) -> Markup:
    found = report.certificate
    limit = found.tolerance if found.layer_errors_against == "PyTorch" else None
    return error_chart(found.layer_errors, limit, found.first_jump)


@dataclass(frozen=True)
class _Ways:
    """The ways through a conditional model."""

    rows: list[tuple[str, ...]]
    summary: str


def _ways(final: Figures) -> _Ways | None:
    if final.paths is None:
        return None
    rows = comparison.path_rows(final.paths, final.latency_ms, final.accuracy)
    summary = "; ".join(comparison.path_summary(final.paths))
    return _Ways(rows, f"{summary[0].upper()}{summary[1:]}.")


@dataclass(frozen=True)
class _Pair:
    """A figure of a layer before and after, as text, and as bars in percent of the largest in the table."""

    before: str
    after: str
    wide_before: float
    wide_after: float
    order: float


@dataclass(frozen=True)
class _LayerRow:
    layer: Layer
    shapes: tuple[str, str]
    pairs: tuple[_Pair, ...]


def _layer_rows(layers: Sequence[Layer]) -> list[_LayerRow]:
    columns: tuple[tuple[Callable[[float | None], str], list[float | None], list[float | None]], ...] = (
        (numbers.si, [x.parameters_before for x in layers], [x.parameters_after for x in layers]),
        (numbers.si, [x.macs_before for x in layers], [x.macs_after for x in layers]),
        (numbers.microseconds, [x.latency_us_before for x in layers], [x.latency_us_after for x in layers]),
    )
    pairs = zip(*(_pairs(write, before, after) for write, before, after in columns), strict=True)
    return [
        _LayerRow(layer, (_shape(layer.shape_before), _shape(layer.shape_after)), tuple(found))
        for layer, found in zip(layers, pairs, strict=True)
    ]


def _pairs(
    write: Callable[[float | None], str], before: list[float | None], after: list[float | None]
) -> Iterator[_Pair]:
    most = max((value for value in (*before, *after) if value), default=1.0)
    for one, other in zip(before, after, strict=True):
        yield _Pair(write(one), write(other), 100 * (one or 0) / most, 100 * (other or 0) / most, one or 0)


def _shape(sizes: Sequence[int] | None) -> str:
    if sizes is None:
        return "removed"
    return " × ".join(str(size) for size in sizes) or "scalar"
