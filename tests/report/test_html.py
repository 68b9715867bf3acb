import itertools
import re
from html.parser import HTMLParser

import pytest

from adaptkit.report import html
from adaptkit.report.charts import Point, error_chart, step_chart, ticks
from adaptkit.report.schema import MetricValue, Report

HOSTILE = "<script>alert('1')</script>\"&"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: its text, its elements, whether every element is closed in order."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def having(self, tag, **wanted):
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


@pytest.fixture
def page(report):
    return Page(html.render(report))


def test_loads_nothing(report):
    source = html.render(report)
    assert "http:" not in source
    assert "https:" not in source
    assert not re.search(r"@import|url\(|\ssrc=", source)
    assert [found["href"] for found in Page(source).having("link")] == ["data:,"]
    policy = Page(source).having("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[0]["content"].startswith("default-src 'none'")


def test_every_figure_is_shown(page):
    for figure in ["89.71 %", "88.94 %", "855.8 k", "742.0 k", "125.7 M", "92.30 M", "3.478 MB", "809.0 kB", "2.31 ms"]:
        assert figure in page.text
    for figure in [
        "0.636 ms",
        "3.63 × faster (3.56–3.74)",
        "71.43 MB",
        "63.43 MB",
        "34.6 mJ",
        "9.53 mJ",
        "3.56",
        "1.05",
    ]:
        assert figure in page.text
    assert "EPR (estimate) 3.56 mJ 1.05 mJ 3.38 × lower" in page.text
    for figure in ["99.68 %", "88.97 %", "0.412", "0.0183", "0.0500", "layer2.6.conv1", "10,000", "1.00 points"]:
        assert figure in page.text


def test_verdict_steps_and_sources_are_shown(page):
    assert page.having("div", **{"aria-label": "Result: 3.63 × faster, 4.30 × smaller, 0.77 points lost"})
    for words in ["prune.depth", "distill.logits", "quantize.static", 'targets: ["*"]', "Removed 8 of 27 blocks"]:
        assert words in page.text
    for words in ["aten::constant_pad_nd", "prune.depth: {latency: 0.6}", "weights_sha256: 1f6a...", "onnxruntime"]:
        assert words in page.text


@pytest.mark.parametrize("method", ["estimate", "rapl", "nvml"])
def test_energy_never_stands_without_its_method(report, method):
    report.baseline.energy_method = report.final.energy_method = method
    rows = re.findall(r"<tr>.*?</tr>", html.render(report), re.DOTALL)
    energy = [row for row in rows if re.search(r"mJ|EPR|9\.53", row) and 'scope="row"' in row]
    assert len(energy) == 4
    assert all(method in row for row in energy)


def test_both_energy_methods_are_named_where_they_differ(report):
    report.baseline.energy_method = "rapl"
    assert "energy per sample (rapl → estimate)" in html.render(report)


def test_hostile_text_is_escaped_everywhere(report):
    report.name = report.recipe = report.lock = HOSTILE
    report.environment = {HOSTILE: HOSTILE}
    report.notes = report.uncounted_ops = report.certificate.notes = report.steps[0].notes = [HOSTILE]
    report.steps[0].name = report.layers[0].name = report.layers[0].kind = report.layers[0].note = HOSTILE
    report.steps[0].settings = {HOSTILE: HOSTILE}
    report.gates[0].name = report.certificate.first_jump = HOSTILE
    report.certificate.layer_errors = {HOSTILE: 1e-4}
    found = Page(html.render(report))
    assert len(found.having("script")) == 1
    assert found.text.count(HOSTILE) >= 17


def test_missing_values_are_dashes(report):
    bare = {"accuracy": None, "validation_accuracy": None, "peak_memory_bytes": None, "energy_mj": None, "epr": None}
    report.final = report.final.model_copy(update=bare)
    for step in report.steps:
        step.figures = step.figures.model_copy(update=bare)
    report.certificate.first_jump = None
    found = Page(html.render(report))
    assert "None" not in found.text
    assert "energy per sample (estimate) 34.6 mJ – –" in found.text
    assert "Accuracy against cost" in found.text  # the baseline alone is still a point
    report.baseline = report.baseline.model_copy(update=bare)
    assert "Accuracy against cost" not in Page(html.render(report)).text


def test_removed_layer(report):
    report.layers = [next(row for row in report.layers if row.shape_after is None)]
    found = Page(html.render(report))
    assert found.having("tr", **{"class": "removed"})
    assert "layer2.3.conv1 Conv2d · block removed 32 × 32 × 3 × 3 → removed 9.216 k –" in found.text


@pytest.mark.parametrize("count", [0, 1])
def test_few_steps(report, count):
    report.steps = report.steps[:count]
    found = Page(html.render(report))
    assert len(found.having("polyline", **{"class": "route"})) == 4
    assert ("no steps" in found.text) == (count == 0)


def test_empty_report_parts(report):
    report.layers, report.gates, report.uncounted_ops, report.certificate.layer_errors = [], [], [], {}
    found = Page(html.render(report))
    for words in ["No layer was looked at", "sets no gates", "counting rule: none"]:
        assert words in found.text


def test_failures_are_words_as_well_as_colours(report):
    report.gates[0].passed = report.certificate.passed = False
    assert Page(html.render(report)).text.count("failed") == 4


def test_accessible_tables_and_charts(page):
    assert all("scope" in found for found in page.having("th"))
    assert all(found.get("role") == "img" for found in page.having("svg"))
    names = {found["id"] for _, found in page.elements if "id" in found}
    assert {found["aria-labelledby"] for _, found in page.elements if "aria-labelledby" in found} <= names


def test_same_report_same_bytes(report):
    assert html.render(report) == html.render(report.model_copy(deep=True))


def test_json_round_trip(report):
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.version == 1


def test_infinite_error_survives_json(report):
    report.certificate.max_error = float("inf")
    assert "Infinity" in report.model_dump_json()
    assert Report.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(("low", "high"), [(0, 2.31), (84.2, 90.1), (0, 1e-9), (5, 5), (99.9, 100), (0, 0), (0, 1e9)])
def test_ticks_span_the_values_evenly(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert max(steps) - min(steps) < 1e-9 * max(abs(found[-1]), 1)


def test_step_chart_joins_the_points_in_order():
    chart = step_chart("cost", "ms", [Point("0", "before", 2.0, 0.9), Point("1", "after", 1.0, 0.8)])
    (route,) = Page(chart).having("polyline")
    (x0, y0), (x1, y1) = (map(float, place.split(",")) for place in route["points"].split())
    assert x1 < x0
    assert y1 > y0  # less accurate is further down the page


def test_labels_of_equal_points_do_not_cover_each_other():
    chart = step_chart("cost", "ms", [Point(str(index), "same", 1.0, 0.5) for index in range(6)])
    places = [(float(mark["x"]), float(mark["y"])) for mark in Page(chart).having("text", **{"class": "mark"})]
    assert len({*places}) == 6


def test_error_chart_marks_the_jump_and_leaves_out_zero():
    chart = Page(error_chart({"a": 0.0, "b": 1e-6, "c": 1e-2, "d": float("inf")}, 1e-3, "c"))
    assert len(chart.having("rect")) == 2
    assert len(chart.having("rect", **{"class": "bar jump"})) == 1
    assert error_chart({}, 1e-3, None) == ""


def test_metrics_of_both_models_have_their_intervals(report):
    assert "95 % intervals" not in Page(html.render(report)).text
    for figures, value in ((report.baseline, 0.91), (report.final, 0.87)):
        found = MetricValue(
            value=value, low=value - 0.02, high=value + 0.01, interval=HOSTILE, samples=9, higher_is_better=True
        )
        figures.metrics = {"f1": found}
    found = Page(html.render(report))
    assert "f1 (test) 0.9100 0.8700 0.0400 worse" in found.text
    assert f"f1 before 0.9100 0.8900 to 0.9200 {HOSTILE} f1 after 0.8700 0.8500 to 0.8800 {HOSTILE}" in found.text
    assert len(found.having("td", **{"class": "worse"})) == 1
    assert Report.model_validate_json(report.model_dump_json()) == report
