"""Line charts: how latencies are spread, and how sure a model is beside how often it is right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from adaptkit.report.charts import Scale, element, picture
from adaptkit.report.numbers import digits
from adaptkit.report.schema import LATENCY_LEVELS, Bin, Percentiles
from adaptkit.report.verdict import accuracy_interval

_WIDTH, _HEIGHT = 340, 286
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 44, 46
_QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def latency_chart(title: str, lines: dict[str, Percentiles]) -> Markup:
    """Draw which share of the calls is answered within which time.

    Args:
        title: The setting.
        lines: Of before, after and unwrapped, which are dashed, drawn through and dotted: no line needs its colour.
            One whose calls were not kept is left out, and so is one of a clock too coarse for a logarithm.
    """
    kept = {name: latency for name, latency in lines.items() if latency.quantiles and latency.quantiles[0] > 0}
    if not kept:
        return Markup("")
    across = powers(
        min(latency.quantiles[0] for latency in kept.values()), max(latency.quantiles[-1] for latency in kept.values())
    )
    # A busy machine makes one call in a hundred ten times slower: on a linear scale that would be all there is to see.
    x = Scale(math.log(across[0]), math.log(across[-1]), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, 1, _HEIGHT - _BOTTOM, _TOP)
    marks = [(x(math.log(value)), f"{value:g}") for value in across]
    parts = _frame(marks, y, f"{title}: ms a call", "answered within")
    for name, latency in kept.items():
        places = [
            (x(math.log(ms)), y(level / 100)) for level, ms in zip(LATENCY_LEVELS, latency.quantiles, strict=True)
        ]
        parts.append(_line(places, name))
    said = "; ".join(
        f"{name}: p50 {digits(latency.p50)} ms, p90 {digits(latency.p90)} ms, p99 {digits(latency.p99)} ms"
        for name, latency in kept.items()
    )
    parts += _legend(kept)
    return picture(f"Share of the calls answered within a time, {title}", said, parts, (_WIDTH, _HEIGHT))


def powers(low: float, high: float, most: int = 7) -> list[float]:
    """Choose values 1, 2, 5, 10, … that span low to high on a logarithmic scale, or powers of ten where those suffice.

    Example:
        >>> powers(0.03, 0.4), powers(0.03, 900)
        ([0.02, 0.05, 0.1, 0.2, 0.5], [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(number for number, value in enumerate(fine) if value <= low)
    last = min(number for number, value in enumerate(fine) if value >= high and number > first)
    chosen = fine[first : last + 1]
    return chosen if len(chosen) <= most else [float(f"1e{exponent}") for exponent in exponents]


def calibration_chart(curves: dict[str, Sequence[Bin]]) -> Markup:
    """Draw accuracy against certainty; the area of a dot is the share of the samples in it.

    Args:
        curves: Of before and after; an empty one is left out.
    """
    kept = {name: [each for each in bins if each.samples] for name, bins in curves.items() if bins}
    if not kept:
        return Markup("")
    x, y = Scale(0, 1, _LEFT, _WIDTH - _RIGHT), Scale(0, 1, _HEIGHT - _BOTTOM, _TOP)
    marks = [(x(value), f"{100 * value:g} %") for value in _QUARTERS]
    parts = _frame(marks, y, "how sure the model is", "right")
    parts.append(element("line", class_="ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    said = []
    for name, bins in kept.items():
        samples = sum(each.samples for each in bins)
        for each in bins:
            told, drawn = _bin(name, each, each.samples / samples, x, y)
            said.append(told)
            parts += drawn
    parts += [mark for number, name in enumerate(kept) for mark in _dot_legend(number, name)]
    return picture("How often the model is right, by how sure it is", "; ".join(said), parts, (_WIDTH, _HEIGHT))


def _bin(name: str, found: Bin, share: float, x: Scale, y: Scale) -> tuple[str, list[Markup]]:
    """Draw a dot, and through it, where it is of the result, the 95 % interval of the accuracy."""
    sure, right = found.confidence or 0.0, found.accuracy or 0.0
    low, high = accuracy_interval(right, found.samples)
    told = f"{name}: {100 * sure:.1f} % sure, {100 * right:.1f} % right, {found.samples:,} samples"
    dot = element("title", text=told)
    marks = [element("circle", dot, class_=f"bin {name}", cx=x(sure), cy=y(right), r=2 + 8 * share**0.5)]
    if name == "after":
        marks.append(element("line", class_="range", x1=x(sure), x2=x(sure), y1=y(low), y2=y(high)))
    return told, marks


def _frame(across: Sequence[tuple[float, str]], y: Scale, named: str, up: str) -> list[Markup]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [element("line", class_="grid", x1=place, x2=place, y1=_TOP, y2=bottom) for place, _ in across]
    parts += [element("line", class_="grid", x1=_LEFT, x2=right, y1=y(v), y2=y(v)) for v in _QUARTERS]
    parts += [element("text", text=text, class_="tick middle", x=place, y=bottom + 16) for place, text in across]
    parts += [element("text", text=f"{100 * v:g} %", class_="tick end", x=_LEFT - 6, y=y(v) + 4) for v in _QUARTERS]
    parts.append(element("text", text=named, class_="axis", x=(_LEFT + right) / 2, y=_HEIGHT - 8))
    return [*parts, element("text", text=up, class_="tick", x=2, y=_TOP - 8)]


def _line(places: Sequence[tuple[float, float]], name: str) -> Markup:
    return element("polyline", class_=f"curve {name}", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in places))


def _legend(names: Iterable[str]) -> list[Markup]:
    parts = []
    for number, name in enumerate(names):
        left = _LEFT + 88 * number
        parts.append(element("line", class_=f"curve {name}", x1=left, x2=left + 26, y1=11, y2=11))
        parts.append(element("text", text=name, class_="label", x=left + 31, y=15))
    return parts


def _dot_legend(number: int, name: str) -> tuple[Markup, Markup]:
    left = _LEFT + 88 * number
    return (
        element("circle", class_=f"bin {name}", cx=left + 6, cy=11, r=5),
        element("text", text=name, class_="label", x=left + 17, y=15),
    )
