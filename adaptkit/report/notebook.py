"""How results show themselves in a notebook: as tables."""

from __future__ import annotations

from markupsafe import Markup

from adaptkit.report.comparison import comparison, gate_values
from adaptkit.report.profile_rows import LAYER_HEADINGS, figure_rows, layer_row, machine_summary
from adaptkit.report.schema import Figures, Profile, Report, SideBySide
from adaptkit.report.side_by_side import side_by_side_rows
from adaptkit.report.tables import html_table
from adaptkit.report.verdict import verdict

_PARAGRAPH = Markup("<p>{}</p>\n")


def figures_html(figures: Figures) -> str:
    """Write the figures of one model as a table."""
    return html_table(figure_rows(figures), "Figures of the model")


def profile_html(profile: Profile) -> str:
    """Write a profile as tables: the whole, then every network layer by layer."""
    parts = [html_table(figure_rows(profile), profile.model)]
    if profile.machine is not None:
        parts.append(_PARAGRAPH.format(machine_summary(profile.machine)))
    for network in profile.networks:
        rows = [layer_row(layer) for layer in network.layers]
        parts.append(html_table(rows, f"Layers of {network.file}", LAYER_HEADINGS))
    return Markup("\n").join(parts)


def report_html(report: Report) -> str:
    """Write a report as tables: the verdict, before and after, the gates."""
    rows = [(row.label, row.before, row.after, row.change) for row in comparison(report)]
    parts = [
        _PARAGRAPH.format(f"{report.name}: {verdict(report)}"),
        html_table(rows, "Before and after", ("", "before", "after", "change")),
    ]
    if report.gates:
        gates = [(gate.name, *gate_values(gate), "passed" if gate.passed else "FAILED") for gate in report.gates]
        parts.append(html_table(gates, "Gates", ("gate", "limit", "found", "")))
    return Markup("\n").join(parts)


def side_by_side_html(found: SideBySide) -> str:
    """Write a comparison as a table, with the verdict above it."""
    heading, *rows = side_by_side_rows(found)
    return _PARAGRAPH.format(found.verdict) + html_table(rows, "Side by side", heading)
