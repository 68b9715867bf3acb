"""What a report says, before it is text or HTML: the before/after rows, the verdict, the accuracy of the steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaptkit.report.numbers import DASH, digits, percent, points, ratio_of, si, times
from adaptkit.report.schema import Figures, Gate, Layer, Ratio, Report


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


def energy_methods(*figures: Figures) -> str:
    """Name the method of the energy figures, or each of them where they differ."""
    return " → ".join(dict.fromkeys(one.energy_method for one in figures))


def comparison(report: Report) -> list[Row]:
    """Compare the baseline with the final file, figure by figure."""
    return [*_size_rows(report.baseline, report.final), *_latency_rows(report), *_cost_rows(report)]


def _size_rows(before: Figures, after: Figures) -> Iterator[Row]:
    for split, one, other in (
        ("test", before.accuracy, after.accuracy),
        ("validation", before.validation_accuracy, after.validation_accuracy),
    ):
        if split == "test" or one is not None or other is not None:
            yield Row(f"accuracy ({split})", percent(one), percent(other), points(one, other))
    parameters, macs, size = (ratio_of(getattr(before, k), getattr(after, k)) for k in ("parameters", "macs", "bytes"))
    yield Row("parameters", si(before.parameters), si(after.parameters), times(parameters, "fewer", "more"), parameters)
    yield Row("MACs per sample", si(before.macs), si(after.macs), times(macs, "fewer", "more"), macs)
    yield Row("file size", si(before.bytes, "B"), si(after.bytes, "B"), times(size, "smaller", "larger"), size)


def _latency_rows(report: Report) -> Iterator[Row]:
    before, after = report.baseline.latency_ms, report.final.latency_ms
    for key in dict.fromkeys([*before, *after]):
        measured = report.final.speedup.get(key)
        one, other = (f"{digits(table[key].p50)} ms" if key in table else DASH for table in (before, after))
        ratio = measured.median if measured else None
        yield Row(f"latency p50, {setting_label(key)}", one, other, speedup_text(measured), ratio)


def _cost_rows(report: Report) -> Iterator[Row]:
    before, after, method = report.baseline, report.final, energy_methods(report.baseline, report.final)
    memory = ratio_of(before.peak_memory_bytes, after.peak_memory_bytes)
    energy, epr = ratio_of(before.energy_mj, after.energy_mj), ratio_of(before.epr, after.epr)
    sizes = si(before.peak_memory_bytes, "B"), si(after.peak_memory_bytes, "B")
    yield Row("peak memory", *sizes, times(memory, "less", "more"), memory)
    joules = _millijoules(before.energy_mj), _millijoules(after.energy_mj)
    yield Row(f"energy per sample ({method})", *joules, times(energy, "less", "more"), energy)
    yield Row(f"EPR ({method})", digits(before.epr), digits(after.epr), times(epr, "lower", "higher"), epr)


def _millijoules(value: float | None) -> str:
    return DASH if value is None else f"{digits(value)} mJ"


@dataclass(frozen=True)
class Verdict:
    """The result in three facts, each a value and what it says."""

    speed: tuple[str, str]
    size: tuple[str, str]
    accuracy: tuple[str, str]

    def __str__(self) -> str:
        return ", ".join(" ".join(fact) for fact in (self.speed, self.size, self.accuracy))


def verdict(report: Report) -> Verdict:
    """Say how much faster and smaller the final file is, at the first latency setting, and what it cost."""
    first = next(iter(report.final.speedup.values()), None)
    size = ratio_of(report.baseline.bytes, report.final.bytes)
    lost = points(report.baseline.accuracy, report.final.accuracy)
    return Verdict(
        _fact(times(first.median if first else None, "faster", "slower"), "speed"),
        _fact(times(size, "smaller", "larger"), "size"),
        _fact(lost, "accuracy"),
    )


def _fact(text: str, what: str) -> tuple[str, str]:
    if text == DASH:
        return DASH, f"{what} not measured"
    if text in ("the same", "nothing lost"):
        return ("0.00", "points lost") if what == "accuracy" else ("1.00 ×", f"the same {what}")
    value, _, words = text.rpartition(" ")
    if what == "accuracy":
        value, _, unit = value.partition(" ")
        words = f"{unit} {words}"
    return value, words


def step_accuracies(report: Report) -> tuple[str, list[float | None]]:
    """Give the split that was measured after every step, and its accuracy: baseline first, then each step."""
    figures = [report.baseline, *(step.figures for step in report.steps)]
    test = [one.accuracy for one in figures]
    if None not in test:
        return "test", test
    return "validation", [one.validation_accuracy for one in figures]


def gate_values(gate: Gate) -> tuple[str, str]:
    """Write the limit and the finding of a gate in the unit of its name."""
    return _gate_value(gate.name, gate.limit), _gate_value(gate.name, gate.found)


def _gate_value(name: str, value: float) -> str:
    if name == "max_accuracy_drop":
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
