"""What every layer costs before and after, from input to output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from adaptkit.report.charts import Scale, element, picture, ticks
from adaptkit.report.schema import Layer

_WIDTH, _HEIGHT = 720, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 30, 34
_NAMED = 3
Cost = Callable[[Layer], tuple[float | None, float | None]]


def layer_chart(title: str, write: Callable[[float | None], str], layers: Sequence[Layer], cost: Cost) -> Markup:
    """Draw a frame for what a layer cost before, a filled bar for what it costs now, a cross where it is gone.

    Args:
        title: What it costs.
        write: Writes a value with its unit.
        layers: From input to output.
        cost: Gives the values of a layer before and after; None where there is none.
    """
    costs = [cost(layer) for layer in layers]
    most = max((value for pair in costs for value in pair if value), default=0.0)
    if not most:
        return Markup("")
    up = ticks(0, most, 4)
    x, y = Scale(-0.5, len(layers) - 0.5, _LEFT, _WIDTH - _RIGHT), Scale(0, up[-1], _HEIGHT - _BOTTOM, _TOP)
    wide = min(0.8 * (x(1) - x(0)), 40.0)
    parts = [element("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(v), y2=y(v)) for v in up]
    parts += [element("text", text=write(v), class_="tick end", x=_LEFT - 6, y=y(v) + 4) for v in up]
    for number, (layer, (before, after)) in enumerate(zip(layers, costs, strict=True)):
        hover = f"{layer.name}: {write(before)} → {'removed' if layer.shape_after is None else write(after)}"
        bars = _bars(before, after, layer.shape_after is None, x(number), wide, y)
        parts.append(element("g", element("title", text=hover), *bars))
    parts += [*_legend(), element("text", text=title, class_="label end", x=_WIDTH - _RIGHT, y=16)]
    parts += [element("text", text="layers, from input to output", class_="axis", x=_WIDTH / 2, y=242)]
    return picture(
        f"{title} of {len(layers)} layers", _said(layers, costs, write), parts, (_WIDTH, _HEIGHT), "chart wide"
    )


def _bars(before: float | None, after: float | None, gone: bool, middle: float, wide: float, y: Scale) -> list[Markup]:
    parts = []
    if before is not None:
        box = {"x": middle - wide / 2, "y": y(before), "width": wide, "height": y.start - y(before)}
        parts.append(element("rect", class_="was", **box))
    if after is not None:
        box = {"x": middle - wide / 4, "y": y(after), "width": wide / 2, "height": y.start - y(after)}
        parts.append(element("rect", class_="bar", **box))
    if gone:
        parts.append(element("text", text="×", class_="mark", x=middle, y=y.start - 4))
    return parts


def _legend() -> list[Markup]:
    return [
        element("rect", class_="was", x=_LEFT, y=6, width=14, height=12),
        element("text", text="before", class_="label", x=_LEFT + 20, y=16),
        element("rect", class_="bar", x=_LEFT + 78, y=6, width=8, height=12),
        element("text", text="after", class_="label", x=_LEFT + 92, y=16),
        element("text", text="× removed", class_="label", x=_LEFT + 142, y=16),
    ]


def _said(
    layers: Sequence[Layer], costs: Sequence[tuple[float | None, float | None]], write: Callable[[float | None], str]
) -> str:
    order = sorted(range(len(layers)), key=lambda number: -(costs[number][0] or 0))[:_NAMED]
    largest = [f"{layers[number].name} {write(costs[number][0])} → {write(costs[number][1])}" for number in order]
    return f"The most expensive before: {'; '.join(largest)}. The table of layers has them all."
