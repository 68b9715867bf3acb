"""What a comparison of artifacts says, before it is text or HTML; and its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from adaptkit.report.comparison import (
    PATH_HEADINGS,
    interval_text,
    milliseconds,
    paired_text,
    path_rows,
    setting_label,
    speedup_text,
)
from adaptkit.report.dominance import qualities
from adaptkit.report.numbers import DASH, digits, percent, points, ratio_of, si, times
from adaptkit.report.scatter import Candidate, pareto_chart
from adaptkit.report.schema import Contender, SideBySide


def side_by_side_rows(found: SideBySide) -> list[tuple[str, ...]]:
    """List the figures of all, a column each, and of every one but the first what it is against the first."""
    first, *others = found.contenders
    rows = [
        ("", *(one.label for one in found.contenders), *(f"{one.label} against {first.label}" for one in others)),
        _row(found, "file", lambda one: si(one.bytes, "B"), _ratio("bytes", "smaller", "larger")),
        _row(found, "parameters", lambda one: si(one.parameters), _ratio("parameters", "fewer", "more")),
    ]
    if first.accuracy is not None:
        rows.append(
            _row(found, "accuracy", lambda one: percent(one.accuracy), lambda a, b: points(a.accuracy, b.accuracy))
        )
    rows += [_metric_row(found, name) for name in first.metrics]
    for key in first.latency_ms:
        rows += _latency_rows(found, key)
    if found.energy_method is not None:
        energy = _ratio("energy_mj", "less", "more")
        rows.append(_row(found, f"energy per sample ({found.energy_method})", _millijoules, energy))
    return rows


def _row(
    found: SideBySide, label: str, write: Callable[[Contender], str], against: Callable[[Contender, Contender], str]
) -> tuple[str, ...]:
    first, *others = found.contenders
    return (label, *map(write, found.contenders), *(against(first, other) for other in others))


def _metric_row(found: SideBySide, name: str) -> tuple[str, ...]:
    def against(_: Contender, other: Contender) -> str:
        apart = other.metrics_against_first[name]
        return f"{digits(apart.value, 4)} ({interval_text(apart.low, apart.high)})"

    return _row(found, name, lambda one: digits(one.metrics[name].value, 4), against)


def _ratio(figure: str, less: str, more: str) -> Callable[[Contender, Contender], str]:
    return lambda first, other: times(ratio_of(getattr(first, figure), getattr(other, figure)), less, more)


def _millijoules(one: Contender) -> str:
    return DASH if one.energy_mj is None else f"{digits(one.energy_mj)} mJ"


def _latency_rows(found: SideBySide, key: str) -> list[tuple[str, ...]]:
    named = ("mean", "p50", "p99") if found.contenders[0].latency_ms[key].mean is not None else ("p50",)
    rows = []
    for which in named:
        label = f"latency {which}, {setting_label(key)}" if which == named[0] else f"  {which}"
        rows.append(
            _row(
                found,
                label,
                lambda one, which=which: milliseconds(one.latency_ms[key], which),  # type: ignore[misc]
                lambda _, other, which=which: speedup_text(other.speedup.get(key)) if which == named[0] else "",  # type: ignore[misc]
            )
        )
    return rows


def accuracy_lines(found: SideBySide) -> list[str]:
    """Say of each but the first how its accuracy differs, how far that can be trusted, and whether it is proven."""
    first, *others = found.contenders
    lines = []
    for one in others:
        pair = one.against_first
        if pair is None:
            continue
        lines.append(f"{one.label} against {first.label}: {paired_text(pair)}")
    return lines


def way_tables(found: SideBySide) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Give the ways through each conditional model, with a title; the first row is the heading."""
    return [
        (
            f"ways through {one.label}, slowest: {one.paths.slowest}",
            [PATH_HEADINGS, *path_rows(one.paths, one.latency_ms, one.accuracy)],
        )
        for one in found.contenders
        if one.paths is not None and len(one.paths.ways) > 1
    ]


def pareto_charts(found: SideBySide) -> list[Markup]:
    """Draw accuracy or R² against latency, bytes and energy, each as far as all were measured."""
    key, quality = next(iter(found.contenders[0].latency_ms), ""), found.contenders[0].score_name
    costs = (
        (f"latency, {setting_label(key)}", "ms", "latency", 1.0),
        ("file size", "MB", "bytes", 1e6),
        (f"energy per sample, {found.energy_method}", "mJ", "energy", 1.0),
    )
    return [
        pareto_chart(title, unit, _candidates(found.contenders, name, scale), quality)
        for title, unit, name, scale in costs
        if all({name, "accuracy"} <= set(qualities(one)) for one in found.contenders)
    ]


def _candidates(contenders: Sequence[Contender], name: str, scale: float) -> list[Candidate]:
    shown = [(one, -qualities(one)[name], qualities(one)["accuracy"]) for one in contenders]
    return [
        Candidate(one.label, one.file, cost / scale, right, not _beaten(cost, right, [s[1:] for s in shown]))
        for one, cost, right in shown
    ]


def _beaten(cost: float, right: float, others: Sequence[tuple[float, float]]) -> bool:
    return any(c <= cost and r >= right and (c < cost or r > right) for c, r in others)
