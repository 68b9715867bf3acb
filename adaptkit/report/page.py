"""Pages of a profile and of a comparison: one HTML file each, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import adaptkit
from adaptkit.report.comparison import PATH_HEADINGS, path_rows
from adaptkit.report.profile_rows import (
    LAYER_HEADINGS,
    figure_rows,
    layer_row,
    machine_summary,
    most_expensive,
    network_summary,
)
from adaptkit.report.scatter import roofline_chart
from adaptkit.report.schema import Network, Profile, SideBySide
from adaptkit.report.side_by_side import accuracy_lines, pareto_charts, side_by_side_rows, way_tables
from adaptkit.report.tables import html_table

_ROOFS = (
    "A dot is a layer, its area the share of the time. Slopes are the measured bandwidths of caches and memory, the "
    "lines across the measured peaks: the nearer a dot is to its roof, the less is left to gain in this layer."
)
_FRONT = "The line joins the models that no other beats in both; hollow dots are beaten."


@dataclass(frozen=True)
class Section:
    """A part of a page, under a heading of its own."""

    heading: str
    lines: Sequence[str] = ()
    charts: Sequence[Markup] = ()
    tables: Sequence[Markup] = ()


def render_page(kind: str, title: str, verdict: str, sections: Sequence[Section]) -> str:
    """Write a page.

    Args:
        kind: What it is, above the title.
        title: What it is about.
        verdict: The result in one sentence.
        sections: The rest.
    """
    environment = Environment(
        loader=PackageLoader("adaptkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        kind=kind, title=title, verdict=verdict, sections=sections, version=adaptkit.__version__
    )


def render_profile(profile: Profile) -> str:
    """Write the page of a profile: the whole, the ways through it, then every network layer by layer."""
    sections = [Section("The whole", tables=[html_table(figure_rows(profile), "Figures of the model")])]
    if profile.paths is not None and len(profile.paths.ways) > 1:
        ways = path_rows(profile.paths, profile.latency_ms, profile.accuracy)
        table = html_table(ways, f"Ways, over {profile.paths.samples:,} samples", PATH_HEADINGS)
        sections.append(Section("Ways through the model", tables=[table]))
    if profile.machine is not None:
        sections.append(Section("The machine", lines=[machine_summary(profile.machine), _ROOFS]))
    sections += [_network(network, profile) for network in profile.networks]
    return render_page("Profile", profile.model, _sentence(most_expensive(profile.networks)), sections)


def render_side_by_side(found: SideBySide) -> str:
    """Write the page of a comparison: which dominates which, the Pareto pictures, the figures, the ways."""
    heading, *rows = side_by_side_rows(found)
    names = [f"{one.label} is {one.file}." for one in found.contenders]
    charts = pareto_charts(found)
    sections = [Section("What is compared", [*names, *accuracy_lines(found)])]
    if charts:
        sections.append(Section("Accuracy against cost", [_FRONT], charts))
    sections.append(Section("Figures", tables=[html_table(rows, "Measured alternately", heading)]))
    for title, (columns, *ways) in way_tables(found):
        sections.append(Section(_sentence(title)[:-1], tables=[html_table(ways, title, columns)]))
    return render_page("Comparison", f"{len(found.contenders)} models side by side", found.verdict, sections)


def _network(network: Network, profile: Profile) -> Section:
    assert profile.machine is not None
    chart = roofline_chart(network, profile.machine)
    return Section(
        f"Layers of {network.file}",
        [network_summary(network)],
        [chart] if chart else [],
        [html_table([layer_row(layer) for layer in network.layers], "In the order they run", LAYER_HEADINGS)],
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
