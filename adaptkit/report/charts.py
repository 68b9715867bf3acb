"""Charts as inline SVG: a page's CSS gives them their colours, so they follow light and dark.

What a colour says is said by a shape or a word too, and every chart has a title and, in words, what it shows.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from adaptkit.report.numbers import capital, digits

_WIDTH, _HEIGHT = 340, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 18, 16, 46
_LABEL_PLACES = ((0, -15), (15, 0), (0, 15), (-15, 0), (12, -12), (12, 12), (-12, 12), (-12, -12), (0, -27), (27, 0))


def element(name: str, *children: object, text: object = "", **attributes: object) -> Markup:
    """Make one SVG element; attribute values and text are escaped, `_` in an attribute's name becomes `-`.

    Example:
        >>> element("text", text="<a>", class_="x", text_anchor="end")
        Markup('<text class="x" text-anchor="end">&lt;a&gt;</text>')
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    inside = Markup("").join([escape(str(text)), *(escape(child) for child in children)])
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704 - every part above is escaped


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def picture(title: str, said: str, parts: Iterable[Markup], size: tuple[int, int], style: str = "chart") -> Markup:
    """Put the parts of a chart together, with a name and a description for those who cannot see it.

    Args:
        title: What the chart is of.
        said: Its values in words.
        parts: SVG elements.
        size: Width and height of the drawing.
        style: CSS classes.
    """
    number = f"chart-{hashlib.sha256(title.encode() + said.encode()).hexdigest()[:12]}"
    return element(
        "svg",
        element("title", text=title, id=f"{number}-title"),
        element("desc", text=said, id=f"{number}-said"),
        *parts,
        viewBox=f"0 0 {size[0]} {size[1]}",
        role="img",
        class_=style,
        aria_labelledby=f"{number}-title",
        aria_describedby=f"{number}-said",
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose at most `most` + 1 round values that span low to high.

    Example:
        >>> ticks(0, 2.31)
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if span <= power * factor * most * 1.0001)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Point:
    """One model on the step chart."""

    label: str
    name: str
    x: float
    accuracy: float
    """A share, or R²: up to 1."""


@dataclass(frozen=True)
class Scale:
    """Maps values from low to high onto places from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def step_chart(title: str, unit: str, points: Sequence[Point], quality: str = "accuracy") -> Markup:
    """Draw accuracy or R² (upwards) against a cost, the steps joined in order; what another beats is hollow."""
    if not points:
        return Markup("")
    across, up = ticks(0, max(point.x for point in points), 4), _accuracy_ticks(points)
    x = Scale(0, max(across[-1], 1e-12), _LEFT, _WIDTH - _RIGHT)
    y = Scale(up[0], up[-1], _HEIGHT - _BOTTOM, _TOP)
    places = [(x(point.x), y(point.accuracy)) for point in points]
    line = element("polyline", class_="route", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in places))
    said = "; ".join(f"{_said(point, unit, quality)}{', beaten' if beaten(point, points) else ''}" for point in points)
    parts = [
        *_grid(across, up, x, y),
        element("text", text=f"{title} ({unit})", class_="axis", x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 8),
        line,
        *_marks(points, places, unit, quality),
    ]
    return picture(f"{capital(quality)} against {title}", said, parts, (_WIDTH, _HEIGHT))


def beaten(point: Point, points: Sequence[Point]) -> bool:
    """Say whether another point is as cheap and as accurate, and better in one of the two.

    Example:
        >>> slow, fast = Point("0", "before", 2.0, 0.9), Point("1", "after", 1.0, 0.9)
        >>> beaten(slow, [slow, fast]), beaten(fast, [slow, fast])
        (True, False)
    """
    return any(
        other.x <= point.x
        and other.accuracy >= point.accuracy
        and (other.x, other.accuracy) != (point.x, point.accuracy)
        for other in points
    )


def _said(point: Point, unit: str, quality: str) -> str:
    return f"{point.label} {point.name}: {digits(point.x)} {unit}, {quality} {100 * point.accuracy:.2f} %"


def _accuracy_ticks(points: Sequence[Point]) -> list[float]:
    low, high = (round(pick(100 * point.accuracy for point in points), 6) for pick in (min, max))
    room = max(high - low, 1.0) * 0.15
    return [tick / 100 for tick in ticks(max(low - room, min(low, 0)), min(high + room, 100), 5)]


def _grid(across: Sequence[float], up: Sequence[float], x: Scale, y: Scale) -> list[Markup]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [element("line", class_="grid", x1=x(v), x2=x(v), y1=_TOP, y2=bottom) for v in across]
    parts += [element("line", class_="grid", x1=_LEFT, x2=right, y1=y(v), y2=y(v)) for v in up]
    parts += [element("text", text=f"{v:g}", class_="tick middle", x=x(v), y=bottom + 16) for v in across]
    parts += [element("text", text=f"{100 * v:g} %", class_="tick end", x=_LEFT - 6, y=y(v) + 4) for v in up]
    return parts


def _marks(points: Sequence[Point], places: Sequence[tuple[float, float]], unit: str, quality: str) -> list[Markup]:
    taken = _along(places)
    marks = []
    for point, (px, py) in zip(points, places, strict=True):
        tx, ty = _free_place(px, py, taken)
        taken.append((tx, ty))
        style = "dot" if beaten(point, points) else "dot best"
        dot = element("circle", element("title", text=_said(point, unit, quality)), class_=style, cx=px, cy=py, r=5)
        marks += [dot, element("text", text=point.label, class_="mark", x=tx, y=ty + 4)]
    return marks


def _along(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sample the joining line densely, so that no label is put on it."""
    found = list(places)
    for (ax, ay), (bx, by) in itertools.pairwise(places):
        count = math.ceil(math.dist((ax, ay), (bx, by)) / 6)
        found += [(ax + (bx - ax) * i / count, ay + (by - ay) * i / count) for i in range(1, count)]
    return found


def _free_place(px: float, py: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Put a label beside its point where nothing is near, or else where the most room is."""
    inside = [
        (px + dx, py + dy)
        for dx, dy in _LABEL_PLACES
        if _LEFT + 6 <= px + dx <= _WIDTH - 8 and 8 <= py + dy <= _HEIGHT - _BOTTOM - 8
    ]
    rooms = [(min(math.dist(place, other) for other in taken), place) for place in inside]
    return next((place for room, place in rooms if room >= 11), max(rooms, default=(0, (px, py - 15)))[1])


def share_chart(shares: dict[str, float]) -> Markup:
    """Draw shares as bars below each other, each with its name and number."""
    parts = []
    for number, (name, share) in enumerate(shares.items()):
        top, wide = 46 * number, max(share * _WIDTH, 1.0) if share else 0.0
        parts += [
            element("text", text=_clipped(name), class_="label", x=0, y=top + 14),
            element("text", text=f"{100 * share:.2f} %", class_="label end", x=_WIDTH, y=top + 14),
            element("rect", class_="rest", x=0, y=top + 20, width=_WIDTH, height=14),
            element("rect", element("title", text=name), class_="way", x=0, y=top + 20, width=wide, height=14),
        ]
    said = "; ".join(f"{name}: {100 * share:.2f} %" for name, share in shares.items())
    return picture("Share of the samples by way", said, parts, (_WIDTH, 46 * len(shares)))


def _clipped(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def error_chart(errors: dict[str, float], tolerance: float | None, jump: str | None) -> Markup:
    """Draw the error of every layer in order, on a logarithmic scale, beside the tolerance where there is one."""
    shown = {name: error for name, error in errors.items() if error > 0 and math.isfinite(error)}
    if not shown:
        return Markup("")
    values = [*shown.values(), *([] if tolerance is None else [tolerance])]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    x = Scale(-0.5, len(errors) - 0.5, 54, 708)
    y = Scale(low, max(high, low + 1), 214, 14)
    parts = [
        *_powers(y),
        *_bars(errors, x, y, jump),
        *([] if tolerance is None else _limit(tolerance, y(math.log10(tolerance)))),
        element("text", text="layers, from input to output", class_="axis", x=381, y=240),
    ]
    worst = max(shown, key=lambda name: shown[name])
    said = f"From {digits(min(shown.values()))} to {digits(shown[worst])} at {worst}. The table below has every layer."
    return picture(f"Error of {len(errors)} layers", said, parts, (720, 250), "chart wide")


def _limit(tolerance: float, height: float) -> list[Markup]:
    beside = height + 13 if height < 20 else height - 5
    return [
        element("line", class_="limit", x1=54, x2=708, y1=height, y2=height),
        element("text", text=f"tolerance {digits(tolerance)}", class_="limit-name", x=58, y=beside),
    ]


def _powers(y: Scale) -> list[Markup]:
    steps = range(int(y.low), int(y.high) + 1, max(1, math.ceil((y.high - y.low) / 6)))
    lines = [element("line", class_="grid", x1=54, x2=708, y1=y(power), y2=y(power)) for power in steps]
    return lines + [element("text", text=f"1e{power}", class_="tick end", x=48, y=y(power) + 4) for power in steps]


def _bars(errors: dict[str, float], x: Scale, y: Scale, jump: str | None) -> list[Markup]:
    wide = min(0.72 * 654 / len(errors), 40.0)
    parts = []
    for index, (name, error) in enumerate(errors.items()):
        if not (error > 0 and math.isfinite(error)):
            continue
        top = y(math.log10(error))
        style = "bar jump" if name == jump else "bar"
        hover = element("title", text=f"{name}: {digits(error)}")
        left = x(index) - wide / 2
        parts.append(element("rect", hover, class_=style, x=left, y=top, width=wide, height=max(y.start - top, 1.0)))
        if name == jump:
            side = "end" if index > len(errors) / 2 else "start"
            parts.append(element("text", text=f"first jump: {name}", class_=f"mark {side}", x=x(index), y=top - 6))
    return parts
