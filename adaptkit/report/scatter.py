"""Charts with two axes of numbers, as inline SVG: the roofline of a profile, the Pareto picture of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adaptkit.report.charts import element, ticks
from adaptkit.report.numbers import capital, digits, percent
from adaptkit.report.schema import Machine, Network

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 18, 16, 46


@dataclass(frozen=True)
class _Axis:
    """Places values along a line of pixels; `log` places their logarithms."""

    marks: list[float]
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.marks[0], self.marks[-1], value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def _powers(values: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def roofline_chart(network: Network, machine: Machine) -> Markup:
    """Draw each layer that multiplies under the roofs: FLOPs a second against FLOPs for a byte, both logarithmic.

    The area of a dot is the layer's share of the time.
    """
    layers = [layer for layer in network.layers if layer.gflops and layer.intensity]
    if not layers:
        return Markup("")
    wide, tall = 720, 380
    peaks = [machine.gflops, machine.int8_gops]
    x = _Axis(_powers([layer.intensity or 1 for layer in layers]), _LEFT, wide - _RIGHT, log=True)
    y = _Axis(_powers([*(layer.gflops or 1 for layer in layers), *peaks]), tall - _BOTTOM, _TOP, log=True)
    dots = []
    for layer in sorted(layers, key=lambda layer: -(layer.share or 0)):
        said = f"{layer.name}: {digits(layer.gflops)} GFLOP/s, {digits(layer.intensity)} FLOPs for a byte"
        radius = max(3.0, 26 * math.sqrt(layer.share or 0))
        style = "dot memory" if layer.bound == "memory" else "dot"
        place = {"cx": x(layer.intensity or 1), "cy": y(layer.gflops or 1), "r": radius}
        dots.append(element("circle", element("title", text=said), class_=style, **place))
    largest = max(layers, key=lambda layer: layer.share or 0)
    said = (
        f"Roofline of {len(layers)} layers under {digits(machine.gflops)} GFLOP/s; the most expensive, {largest.name}, "
        f"reaches {digits(largest.gflops)}"
    )
    return _svg(
        said,
        wide,
        tall,
        [*_grid(x, y, wide, tall, "FLOPs for a byte", "GFLOP/s"), *_roofs(machine, x, y), *dots],
    )


def _roofs(machine: Machine, x: _Axis, y: _Axis) -> list[Markup]:
    """Draw a slope for each measured bandwidth, and a ceiling for each type of product."""
    low, high = x.marks[0], x.marks[-1]
    lines: list[Markup] = []
    top = max(machine.gflops, machine.int8_gops)
    for entry in machine.bandwidths:
        first, last = max(low, y.marks[0] / entry.gb_per_s), min(high, top / entry.gb_per_s)
        if first < last:
            ends = {"x1": x(first), "y1": y(first * entry.gb_per_s), "x2": x(last), "y2": y(last * entry.gb_per_s)}
            said = f"{digits(entry.gb_per_s)} GB/s, over {entry.bytes:,} bytes"
            lines.append(element("line", element("title", text=said), class_="limit", **ends))
    for name, peak in (("float", machine.gflops), ("8 bits", machine.int8_gops)):
        height = y(peak)
        lines.append(element("line", class_="limit", x1=x(low), x2=x(high), y1=height, y2=height))
        lines.append(element("text", text=f"{name}: {digits(peak)}", class_="limit-name", x=x(low) + 6, y=height - 5))
    return lines


@dataclass(frozen=True)
class Candidate:
    """One model on a Pareto picture.

    Args:
        label: Short, written beside its dot.
        name: What it is.
        cost: Lower is better.
        accuracy: A share, or R²: higher is better.
        best: Whether no other is at least as good in both and better in one.
    """

    label: str
    name: str
    cost: float
    accuracy: float
    best: bool


def pareto_chart(title: str, unit: str, candidates: Sequence[Candidate], quality: str = "accuracy") -> Markup:
    """Draw accuracy or R² (upwards) against a cost (to the right); a line joins those that no other beats in both."""
    if not candidates:
        return Markup("")
    wide, tall = 340, 270
    low, high = (pick(100 * one.accuracy for one in candidates) for pick in (min, max))
    room = max(high - low, 1.0) * 0.2
    up = [tick / 100 for tick in ticks(max(low - room, min(low, 0)), min(high + room, 100), 5)]
    across = ticks(0, max(max(one.cost for one in candidates) * 1.05, 1e-9), 4)
    x, y = _Axis(across, _LEFT, wide - _RIGHT), _Axis(up, tall - _BOTTOM, _TOP)
    front = sorted((one for one in candidates if one.best), key=lambda one: one.cost)
    route = " ".join(f"{x(one.cost):.1f},{y(one.accuracy):.1f}" for one in front)
    said = "; ".join(
        f"{one.label} {one.name}: {digits(one.cost)} {unit}, {percent(one.accuracy)}"
        + (", not beaten" if one.best else ", beaten")
        for one in candidates
    )
    marks = [mark for one in candidates for mark in _candidate(one, unit, x, y)]
    grid = _grid(x, y, wide, tall, f"{title} ({unit})", "", percents=True)
    line = element("polyline", class_="route", points=route)
    return _svg(f"{capital(quality)} against {title}. {said}", wide, tall, [*grid, line, *marks])


def _candidate(one: Candidate, unit: str, x: _Axis, y: _Axis) -> list[Markup]:
    px, py = x(one.cost), y(one.accuracy)
    hover = element("title", text=f"{one.name}: {digits(one.cost)} {unit}, {percent(one.accuracy)}")
    dot = element("circle", hover, class_="dot best" if one.best else "dot", cx=px, cy=py, r=5)
    return [dot, element("text", text=one.label, class_="mark", x=px, y=py - 10 if py > _TOP + 16 else py + 20)]


def _grid(x: _Axis, y: _Axis, wide: int, tall: int, across: str, up: str, *, percents: bool = False) -> list[Markup]:
    bottom, right = tall - _BOTTOM, wide - _RIGHT
    parts = [element("line", class_="grid", x1=x(v), x2=x(v), y1=_TOP, y2=bottom) for v in x.marks]
    parts += [element("line", class_="grid", x1=_LEFT, x2=right, y1=y(v), y2=y(v)) for v in y.marks]
    parts += [element("text", text=f"{v:g}", class_="tick middle", x=x(v), y=bottom + 16) for v in x.marks]
    written = [(v, f"{100 * v:g} %" if percents else f"{v:g}") for v in y.marks]
    parts += [element("text", text=text, class_="tick end", x=_LEFT - 6, y=y(v) + 4) for v, text in written]
    parts.append(element("text", text=across, class_="axis", x=(_LEFT + right) / 2, y=tall - 8))
    return [*parts, *([element("text", text=up, class_="tick", x=_LEFT, y=_TOP - 5)] if up else [])]


def _svg(said: str, wide: int, tall: int, parts: Sequence[Markup]) -> Markup:
    style = "chart wide" if wide > 600 else "chart"
    return element("svg", element("title", text=said), *parts, viewBox=f"0 0 {wide} {tall}", role="img", class_=style)
