"""What a report says, before it is text or HTML: the before/after rows, the ways, the accuracy of the steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adaptkit.report.numbers import DASH, digits, percent, points, ratio_of, si, times
from adaptkit.report.schema import Figures, Gate, Layer, MetricValue, PairedAccuracy, Paths, Percentiles, Ratio, Report

PROVEN = 0.05
"""The p value of McNemar's test below which a difference in accuracy is shown."""


@dataclass(frozen=True)
class Row:
    """One figure before and after; `ratio` is above one where the figure got better."""

    label: str
    before: str
    after: str
    change: str
    ratio: float | None = None


def setting_label(key: str) -> str:
    """Spell out a latency setting.

    Example:
        >>> setting_label("t1_b64")
        '1 thread, batch 64'
    """
    match = re.fullmatch(r"t(\d+)_b(\d+)", key)
    if match is None:
        return key
    threads, batch = match.groups()
    return f"{threads} thread{'' if threads == '1' else 's'}, batch {batch}"


def speedup_text(ratio: Ratio | None) -> str:
    """Write a measured speedup with the quartiles of its pairs."""
    if ratio is None:
        return DASH
    return f"{times(ratio.median, 'faster', 'slower')} ({digits(ratio.low)}–{digits(ratio.high)})"


def milliseconds(latency: Percentiles | None, which: str = "p50") -> str:
    """Write one of the percentiles, or the mean.

    Example:
        >>> milliseconds(Percentiles(p50=2, p90=3, p99=4, mean=2.25), "mean"), milliseconds(None)
        ('2.25 ms', '–')
    """
    value = None if latency is None else getattr(latency, which)
    return DASH if value is None else f"{digits(value)} ms"


PATH_HEADINGS = ("", "share", "mean", "p50", "p99", "accuracy", "if all took it")


def path_rows(paths: Paths, latency_ms: Mapping[str, Percentiles], accuracy: float | None) -> list[tuple[str, ...]]:
    """List the ways through a conditional model, and then all of them together, under `PATH_HEADINGS`.

    Args:
        paths: What was measured of them.
        latency_ms: Of all samples; the first setting is that of the ways.
        accuracy: Over all samples.
    """
    rows = [(way.name, way.share, way.latency_ms, way.accuracy, way.accuracy_of_all) for way in paths.ways]
    rows.append(("all", 1.0, next(iter(latency_ms.values())), accuracy, None))
    return [
        (
            name,
            percent(share),
            *(milliseconds(latency, which) for which in ("mean", "p50", "p99")),
            *map(percent, right),
        )
        for name, share, latency, *right in rows
    ]


def path_summary(paths: Paths) -> list[str]:
    """Say which way is the slowest, and what wrapping the model brought."""
    lines = [f"slowest way: {paths.slowest or DASH}"]
    for key, ratio in paths.inner_speedup.items():
        lines.append(f"against the model it was put around, {setting_label(key)}: {speedup_text(ratio)}")
    return lines


METRIC_HEADINGS = ("", "value", "95 % interval", "how")


def metric_rows(metrics: Mapping[str, MetricValue]) -> list[tuple[str, ...]]:
    """List metrics with their intervals under `METRIC_HEADINGS`; one that is not defined says why.

    Example:
        >>> found = MetricValue(value=0.75, low=0.5, high=0.875, interval="exact", samples=9, higher_is_better=True)
        >>> metric_rows({"f1": found})
        [('f1', '0.7500', '0.5000 to 0.8750', 'exact')]
    """
    most = max((found.samples for found in metrics.values()), default=0)
    return [
        (name, digits(found.value, 4), interval_text(found.low, found.high), _how(found, most))
        for name, found in metrics.items()
    ]


def _how(found: MetricValue, most: int) -> str:
    """Say how an interval was found, and of how many samples where others are of more."""
    return found.problem or (found.interval if found.samples == most else f"{found.interval}, {found.samples} samples")


def interval_text(low: float | None, high: float | None) -> str:
    """Write an interval, or a dash where nothing is bounded.

    Example:
        >>> interval_text(-0.5, 0.25), interval_text(1.0, None), interval_text(None, None)
        ('-0.5000 to 0.2500', '≥ 1.000', '–')
    """
    if low is None and high is None:
        return DASH
    return f"≥ {digits(low, 4)}" if high is None else f"{digits(low, 4)} to {digits(high, 4)}"


def paired_text(pair: PairedAccuracy) -> str:
    """Say how the accuracy of two models differs, how far that can be trusted, and whether it is shown at all."""
    edges = "none" if pair.low is None or pair.high is None else f"{100 * pair.low:+.2f} to {100 * pair.high:+.2f}"
    shown = "a difference is shown" if pair.p_value < PROVEN else "no difference is shown"
    return (
        f"{100 * pair.difference:+.2f} points (95 % interval {edges}); {pair.lost} samples lost, {pair.gained} gained, "
        f"McNemar's exact test p = {digits(pair.p_value)}: {shown}"
    )


def baseline_text(report: Report) -> str:
    """Say how the result differs from its baseline over the test samples, or nothing where that is not known."""
    name, pair, numbers = report.baseline.score_name, report.against_baseline, report.r2_against_baseline
    if pair is not None:
        return f"{name} against the baseline: {paired_text(pair)}"
    if numbers is None or numbers.value is None:
        return ""
    ends = [] if numbers.low is None or numbers.high is None else [numbers.low, numbers.high]
    edges = " to ".join(f"{100 * each:+.2f}" for each in ends) or "none"
    shown = "a difference is shown" if ends and not ends[0] <= 0 <= ends[1] else "no difference is shown"
    return f"{name} against the baseline: {100 * numbers.value:+.2f} points (95 % interval {edges}): {shown}"


def energy_methods(*figures: Figures) -> str:
    """Name the method of the energy figures, or each of them where they differ."""
    return " → ".join(dict.fromkeys(one.energy_method for one in figures))


def comparison(report: Report) -> list[Row]:
    """Compare the baseline with the final file, figure by figure."""
    return [*_size_rows(report.baseline, report.final), *_latency_rows(report), *_cost_rows(report)]


def _size_rows(before: Figures, after: Figures) -> Iterator[Row]:
    for split, one, other in (
        ("test", before.score, after.score),
        ("validation", before.validation_score, after.validation_score),
    ):
        if split == "test" or one is not None or other is not None:
            yield Row(f"{before.score_name} ({split})", percent(one), percent(other), points(one, other))
    yield from _metric_rows(before, after)
    parameters, macs, size = (ratio_of(getattr(before, k), getattr(after, k)) for k in ("parameters", "macs", "bytes"))
    yield Row("parameters", si(before.parameters), si(after.parameters), times(parameters, "fewer", "more"), parameters)
    label = "MACs per sample" if after.paths is None else "MACs per sample, expected"
    yield Row(label, si(before.macs), si(after.macs), times(macs, "fewer", "more"), macs)
    yield Row("file size", si(before.bytes, "B"), si(after.bytes, "B"), times(size, "smaller", "larger"), size)


def _metric_rows(before: Figures, after: Figures) -> Iterator[Row]:
    # A study may give other figures of an artifact than of a file: what only one of them has, its own table shows.
    for name, one in before.metrics.items():
        other = after.metrics.get(name)
        if other is None:
            continue
        ratio = ratio_of(other.value, one.value) if one.higher_is_better else ratio_of(one.value, other.value)
        yield Row(f"{name} (test)", digits(one.value, 4), digits(other.value, 4), _change(one, other), ratio)


def _change(one: MetricValue, other: MetricValue) -> str:
    if one.value is None or other.value is None:
        return DASH
    gain = (other.value - one.value) * (1 if one.higher_is_better else -1)
    return "the same" if gain == 0 else f"{digits(abs(gain))} {'better' if gain > 0 else 'worse'}"


def _latency_rows(report: Report) -> Iterator[Row]:
    before, after = report.baseline.latency_ms, report.final.latency_ms
    for key in dict.fromkeys([*before, *after]):
        measured = report.final.speedup.get(key)
        one, other = before.get(key), after.get(key)
        ratio = measured.median if measured else None
        named = "mean" if other is not None and other.mean is not None else "p50"
        shown = milliseconds(one, named), milliseconds(other, named)
        yield Row(f"latency {named}, {setting_label(key)}", *shown, speedup_text(measured), ratio)
        if one is not None and other is not None and named == "mean":
            slow = ratio_of(one.p99, other.p99)
            shown = milliseconds(one, "p99"), milliseconds(other, "p99")
            yield Row(f"latency p99, {setting_label(key)}", *shown, times(slow, "faster", "slower"), slow)


def _cost_rows(report: Report) -> Iterator[Row]:
    before, after, method = report.baseline, report.final, energy_methods(report.baseline, report.final)
    memory = ratio_of(before.peak_memory_bytes, after.peak_memory_bytes)
    energy, epr = ratio_of(before.energy_mj, after.energy_mj), ratio_of(before.epr, after.epr)
    if before.peak_activation_bytes is not None and after.peak_activation_bytes is not None:
        peaks = before.peak_activation_bytes, after.peak_activation_bytes
        ratio = ratio_of(*peaks)
        yield Row("peak activations", si(peaks[0], "B"), si(peaks[1], "B"), times(ratio, "less", "more"), ratio)
    sizes = si(before.peak_memory_bytes, "B"), si(after.peak_memory_bytes, "B")
    yield Row("peak memory", *sizes, times(memory, "less", "more"), memory)
    joules = _millijoules(before.energy_mj), _millijoules(after.energy_mj)
    yield Row(f"energy per sample ({method})", *joules, times(energy, "less", "more"), energy)
    if before.epr is None and after.epr is None:
        return
    yield Row(f"EPR ({method})", _millijoules(before.epr), _millijoules(after.epr), times(epr, "lower", "higher"), epr)


def _millijoules(value: float | None) -> str:
    return DASH if value is None else f"{digits(value)} mJ"


def step_accuracies(report: Report) -> tuple[str, list[float | None]]:
    """Give the split that was measured after every step, and its accuracy or R²: baseline first, then each step."""
    figures = [report.baseline, *(step.figures for step in report.steps)]
    test = [one.score for one in figures]
    if None not in test:
        return "test", test
    return "validation", [one.validation_score for one in figures]


def gate_values(gate: Gate) -> tuple[str, str]:
    """Write the limit and the finding of a gate in the unit of its name."""
    return _gate_value(gate.name, gate.limit), _gate_value(gate.name, gate.found)


def _gate_value(name: str, value: float) -> str:
    if name in ("max_accuracy_drop", "max_r2_drop"):
        return f"{100 * value:.2f} points"
    if name == "min_speedup":
        return times(value)
    if name == "max_bytes":
        return si(value, "B")
    return f"{digits(value)} ms" if name == "max_latency_ms" else digits(value)


def slow_to_gain(layers: Sequence[Layer], most: int = 3) -> list[str]:
    """Name the layers whose measured time fell least for the MACs they lost, the most expensive first.

    These are why a latency ratio stays behind a MACs ratio: runtimes work on blocks of channels, and small layers
    are bound by memory rather than by arithmetic.
    """
    behind = [
        (layer.latency_us_after, layer.name, macs, time)
        for layer in layers
        if layer.latency_us_after
        and (macs := ratio_of(layer.macs_before, layer.macs_after))
        and (time := ratio_of(layer.latency_us_before, layer.latency_us_after))
        and macs > 1.2 * time
    ]
    worst = sorted(behind, key=lambda found: (-found[0], found[1]))[:most]
    return [
        f"{name}: {times(macs, 'fewer', 'more')} MACs, {times(time, 'faster', 'slower')}"
        for _, name, macs, time in worst
    ]
