"""The pictures of a report; one that there are no data for is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adaptkit.report import comparison
from adaptkit.report.charts import Point, share_chart, step_chart
from adaptkit.report.curves import calibration_chart, latency_chart
from adaptkit.report.layer_chart import layer_chart
from adaptkit.report.numbers import capital, microseconds, si
from adaptkit.report.schema import Bin, Figures, Percentiles, Report


@dataclass(frozen=True)
class Picture:
    """A figure: charts of one kind, and what to see in them.

    Args:
        title: Its heading.
        charts: As SVG.
        caption: Sentences.
        wide: Whether each chart takes a row of its own.
    """

    title: str
    charts: list[Markup]
    caption: list[str]
    wide: bool = False


def pictures(report: Report) -> list[Picture]:
    """Draw what a report has data for."""
    found = (_steps(report), _layers(report), _ways(report), _calibration(report), _latencies(report))
    drawn = [Picture(each.title, [chart for chart in each.charts if chart], each.caption, each.wide) for each in found]
    return [each for each in drawn if each.charts]


def _steps(report: Report) -> Picture:
    split, accuracies = comparison.step_accuracies(report)
    models = [report.baseline, *(step.figures for step in report.steps)]
    names = ["before", *(step.name for step in report.steps)]
    if not report.steps:
        final = report.final
        models.append(final)
        names.append("after")
        accuracies.append(final.score if split == "test" else final.validation_score)
    quality = report.baseline.score_name
    charts = [
        step_chart(title, unit, list(_points(names, accuracies, [cost(model) for model in models])), quality)
        for title, unit, cost in _costs(report)
    ]
    key = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return Picture(
        f"{capital(quality)} against cost, step by step",
        charts,
        [
            f"{key}. {capital(quality)} is that on the {split} split; up is more accurate, left is cheaper.",
            "A hollow point is beaten: another one is as cheap and as accurate, and better in one of the two.",
        ],
    )


def _points(names: list[str], accuracies: list[float | None], costs: list[float | None]) -> Iterator[Point]:
    for number, (name, accuracy, cost) in enumerate(zip(names, accuracies, costs, strict=True)):
        if accuracy is not None and cost is not None:
            yield Point(str(number), name, cost, accuracy)


def _costs(report: Report) -> Iterator[tuple[str, str, Callable[[Figures], float | None]]]:
    for key, before in report.baseline.latency_ms.items():
        typical = before.p50 if before.mean is None else before.mean
        yield f"latency, {comparison.setting_label(key)}", "ms", _latency_at(key, typical)
    yield "MACs per sample", "M", lambda figures: figures.macs / 1e6
    yield "file size", "MB", lambda figures: figures.bytes / 1e6


def _latency_at(key: str, before: float) -> Callable[[Figures], float | None]:
    """Latency by the ratio to the baseline: the milliseconds of two steps were measured at different times."""
    return lambda figures: before / figures.speedup[key].median if key in figures.speedup else None


def _layers(report: Report) -> Picture:
    # Without a step that makes another network, both files are the same, and what differs is noise.
    layers = report.layers if any(step.figures.paths is None for step in report.steps) else []
    charts = [
        layer_chart("MACs per sample", si, layers, lambda layer: (layer.macs_before, layer.macs_after)),
        layer_chart(
            "Time by ONNX Runtime's profiler",
            microseconds,
            layers,
            lambda layer: (layer.latency_us_before, layer.latency_us_after),
        ),
    ]
    return Picture("Layer by layer, before and after", charts, [], wide=True)


def _ways(report: Report) -> Picture:
    paths = report.final.paths
    if paths is None:
        return Picture("", [], [])
    chart = share_chart({way.name: way.share for way in paths.ways})
    return Picture("Which way samples take", [chart], [f"Over {paths.samples:,} test samples, one at a time."])


def _calibration(report: Report) -> Picture:
    before, after = report.baseline.calibration, report.final.calibration
    caption = ["On the dotted line a model is as often right as it is sure; below it, it is too sure."]
    if before and after:
        caption += [
            f"The average gap (ECE) is {_points_of(gap(before))} before and {_points_of(gap(after))} after.",
            f"The larger a dot, the more of the {report.certificate.samples:,} test samples are in it. Bars are 95 % "
            "intervals of the accuracy after.",
        ]
    return Picture("How sure, and how often right", [calibration_chart({"before": before, "after": after})], caption)


def gap(bins: Sequence[Bin]) -> float:
    """Give the expected calibration error of a curve: the gap of each bin, weighted by its samples.

    Example:
        >>> gap([Bin(low=0.5, high=1, samples=4, confidence=0.8, accuracy=0.75)])
        0.05
    """
    gaps = [each.samples * abs((each.accuracy or 0) - (each.confidence or 0)) for each in bins]
    return round(sum(gaps) / sum(each.samples for each in bins), 12)


def _points_of(share: float) -> str:
    return f"{100 * share:.2f} points"


def _latencies(report: Report) -> Picture:
    before, after = report.baseline.latency_ms, report.final.latency_ms
    paths = report.final.paths
    inner = paths.inner_latency_ms if paths else {}
    unwrapped = inner if inner != before else {}
    charts = []
    for key, latency in after.items():
        lines = {"before": before.get(key), "after": latency, "unwrapped": unwrapped.get(key)}
        known = {name: each for name, each in lines.items() if each is not None}
        charts.append(latency_chart(comparison.setting_label(key), known))
    return Picture(
        "How long calls take", charts, _about_calls(list(after.values()), paths is not None, bool(unwrapped))
    )


def _about_calls(latencies: Sequence[Percentiles], on_samples: bool, unwrapped: bool) -> list[str]:
    counts = sorted({latency.calls for latency in latencies if latency.calls})
    if not counts:
        return []
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    caption = [f"Of {span} calls a line, from 1 % to 99 % of them. Further left is faster, steeper is steadier."]
    if counts[0] < 1000:
        caption.append("With fewer than 1,000 calls, p99 is rough.")
    if on_samples:
        caption.append("Each call is the median over several passes over the same test samples.")
    if unwrapped:
        caption.append("Unwrapped is the model without what `conditional` put around it.")
    return caption
