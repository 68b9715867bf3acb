"""Pages of profiles and comparisons."""

import re

import pytest

from adaptkit.report.page import Section, render_page, render_side_by_side
from adaptkit.report.scatter import Candidate, pareto_chart
from adaptkit.report.schema import Contender, Percentiles, SideBySide
from adaptkit.report.side_by_side import pareto_charts


def contender(label, accuracy, ms, energy):
    latency = {"t1_b1": Percentiles(p50=ms, p90=ms, p99=ms)}
    return Contender(
        label=label, file=f"<{label}>", parameters=1, bytes=10, latency_ms=latency, speedup={}, accuracy=accuracy,
        energy_mj=energy,
    )  # fmt: skip


def test_dots_are_where_they_belong():
    """Cheaper is further left, more accurate higher, and the line joins those that are not beaten."""
    shown = [Candidate("A", "a", 4, 0.9, True), Candidate("B", "b", 2, 0.8, True), Candidate("C", "c", 3, 0.7, False)]
    text = pareto_chart("bytes", "MB", shown)
    places = {
        name: (float(x), float(y))
        for x, y, name in re.findall(r'class="dot[^"]*" cx="([\d.]+)" cy="([\d.]+)" r="5"><title>(\w)', text)
    }
    assert places["b"][0] < places["c"][0] < places["a"][0]
    assert places["a"][1] < places["b"][1] < places["c"][1]
    (route,) = re.findall(r'<polyline class="route" points="([^"]*)"', text)
    joined = [tuple(map(float, point.split(","))) for point in route.split()]
    assert joined == [pytest.approx(places[name], abs=0.1) for name in ("b", "a")]
    assert "C c: 3.00 MB, 70.00 %, beaten" in text


def test_a_picture_needs_both_figures_of_all():
    whole = SideBySide(contenders=[contender("A", 0.9, 2, 3), contender("B", 0.9, 2, None)], energy_method="estimate")
    assert len(pareto_charts(whole)) == 2
    assert pareto_charts(SideBySide(contenders=[contender("A", None, 2, 3), contender("B", None, 1, 3)])) == []


def test_one_accuracy_for_all_has_a_picture():
    assert "not beaten" in pareto_chart("latency", "ms", [Candidate("A", "a", 0, 1.0, True)])


def test_the_page_is_escaped_and_loads_nothing():
    page = render_side_by_side(
        SideBySide(contenders=[contender("A", 0.9, 2, 3), contender("B", 0.8, 1, 2)], verdict="<i>")
    )
    assert "A is &lt;A&gt;." in page
    assert "<A>" not in page
    assert "<i>" not in page
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    headings = re.findall(r"<h2 id=\"(s\d)\">(.*?)</h2>", page)
    assert [text for _, text in headings] == ["What is compared", "Accuracy against cost", "Figures"]
    assert all(f'aria-labelledby="{number}"' in page for number, _ in headings)
    assert page.count("<svg") == page.count('role="img"') == 3


def test_sections_without_charts_have_no_place_for_them():
    assert 'class="charts' not in render_page("Kind", "Title", "Verdict.", [Section("Heading", ["line"])])
