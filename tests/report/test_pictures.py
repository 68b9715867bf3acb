"""What is drawn, and what is not where there are no data. Every number in here is fixture data."""

import re

import pytest

from adaptkit.report import html
from adaptkit.report.charts import Point, beaten, step_chart
from adaptkit.report.curves import calibration_chart, latency_chart, powers
from adaptkit.report.layer_chart import layer_chart
from adaptkit.report.numbers import si
from adaptkit.report.pictures import gap, pictures
from adaptkit.report.schema import Bin, Percentiles
from tests.report.conftest import spread
from tests.report.test_html import Page
from tests.report.test_ways import conditional  # noqa: F401 - a fixture

ALL = [
    "Accuracy against cost, step by step",
    "Layer by layer, before and after",
    "How sure, and how often right",
    "How long calls take",
]


def titles(report):
    return [each.title for each in pictures(report)]


def test_all_pictures_of_a_plain_model(pictured):
    assert titles(pictured) == ALL
    assert [len(each.charts) for each in pictures(pictured)] == [4, 2, 1, 2]


def test_a_picture_without_data_is_not_there(pictured):
    pictured.final.calibration = pictured.baseline.calibration = []
    assert titles(pictured) == [ALL[0], ALL[1], ALL[3]]
    for figures in (pictured.baseline, pictured.final):
        figures.latency_ms = {
            key: each.model_copy(update={"quantiles": []}) for key, each in figures.latency_ms.items()
        }
    assert titles(pictured) == ALL[:2]
    pictured.layers = []
    assert titles(pictured) == ALL[:1]
    assert "In pictures" in html.render(pictured)
    for figures in (pictured.baseline, pictured.final, *(step.figures for step in pictured.steps)):
        figures.accuracy = figures.validation_accuracy = None
    assert titles(pictured) == []
    assert "picture" not in Page(html.render(pictured)).text.lower()


def test_one_column_without_data_leaves_the_other(pictured):
    for layer in pictured.layers:
        layer.latency_us_before = layer.latency_us_after = None
    assert [len(each.charts) for each in pictures(pictured)] == [4, 1, 1, 2]


def test_layers_that_no_step_touched_are_not_compared(conditional):  # noqa: F811
    assert ALL[1] in titles(conditional)
    conditional.steps = []
    assert ALL[1] not in titles(conditional)


def test_the_ways_are_drawn(conditional):  # noqa: F811
    found = next(each for each in pictures(conditional) if each.title == "Which way samples take")
    assert found.caption == ["Over 10,000 test samples, one at a time."]
    assert "exit 0: 70.00 %; hit: 30.00 %; never: 0.00 %" in Page(found.charts[0]).text


def test_the_unwrapped_model_has_a_line_where_it_is_another_one(conditional):  # noqa: F811
    final = conditional.final
    final.latency_ms = {key: spread(each) for key, each in final.latency_ms.items()}
    found = pictures(conditional)[-1]
    assert len(Page(found.charts[0]).having("polyline")) == 1
    final.paths.inner_latency_ms = {"t1_b1": spread(Percentiles(p50=1, p90=2, p99=3))}
    found = pictures(conditional)[-1]
    assert len(Page(found.charts[0]).having("polyline", **{"class": "curve unwrapped"})) == 1
    assert "Unwrapped is the model without" in found.caption[-1]


def test_few_calls_are_said_to_be_few(pictured):
    assert "p99 is rough" in " ".join(pictures(pictured)[-1].caption)
    for each in pictured.final.latency_ms.values():
        each.calls = 1000
    assert "p99 is rough" not in " ".join(pictures(pictured)[-1].caption)


def test_a_point_is_beaten_by_one_that_is_better_in_one_and_worse_in_none():
    points = [
        Point("0", "a", 2.0, 0.9),
        Point("1", "b", 1.0, 0.8),
        Point("2", "c", 1.0, 0.7),
        Point("3", "d", 2.0, 0.9),
    ]
    assert [beaten(point, points) for point in points] == [False, False, True, False]
    chart = Page(step_chart("cost", "ms", points))
    assert len(chart.having("circle", **{"class": "dot"})) == 1
    assert len(chart.having("circle", **{"class": "dot best"})) == 3
    assert "2 c: 1.00 ms, accuracy 70.00 %, beaten" in chart.text


def test_faster_calls_are_further_left():
    slow, fast = Percentiles(p50=10, p90=11, p99=12), Percentiles(p50=1, p90=2, p99=3)
    chart = Page(latency_chart("1 thread", {"before": spread(slow), "after": spread(fast)}))
    lines = [re.findall(r"([\d.]+),([\d.]+)", line["points"]) for line in chart.having("polyline")]
    for (x_slow, y_slow), (x_fast, y_fast) in zip(*lines, strict=True):
        assert float(x_fast) < float(x_slow)
        assert y_fast == y_slow
    assert "before: p50 10.0 ms, p90 11.0 ms, p99 12.0 ms" in chart.text


def test_a_clock_too_coarse_for_a_logarithm_draws_nothing():
    none = spread(Percentiles(p50=0, p90=1, p99=2))
    assert latency_chart("1 thread", {"before": none}) == ""


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.4), (1, 1), (0.02, 0.05), (1e-3, 1e3), (7, 9), (1e-5, 2e-5)])
def test_powers_span_the_values(low, high):
    found = powers(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) >= 2
    assert found == sorted(set(found))


def test_a_dot_lies_where_it_says():
    bins = [
        Bin(low=0.4, high=0.6, samples=10, confidence=0.5, accuracy=0.5),
        Bin(low=0.8, high=1, samples=90, confidence=0.9, accuracy=0.6),
    ]
    chart = Page(calibration_chart({"before": [], "after": bins}))
    even, sure, _ = chart.having("circle", **{"class": "bin after"})  # and one in the legend
    (ideal,) = chart.having("line", **{"class": "ideal"})
    slope = (float(ideal["y2"]) - float(ideal["y1"])) / (float(ideal["x2"]) - float(ideal["x1"]))
    on_line = [float(ideal["y1"]) + slope * (float(dot["cx"]) - float(ideal["x1"])) for dot in (even, sure)]
    assert float(even["cy"]) == pytest.approx(on_line[0], abs=0.1)
    assert float(sure["cy"]) > on_line[1] + 10  # too sure: below the line, which is further down the page
    assert float(sure["r"]) > float(even["r"])
    (bar, _) = chart.having("line", **{"class": "range"})
    assert float(bar["y2"]) < float(even["cy"]) < float(bar["y1"])


def test_the_gap_is_weighted_by_samples():
    bins = [
        Bin(low=0, high=0.5, samples=1, confidence=0.4, accuracy=0.0),
        Bin(low=0.5, high=1, samples=3, confidence=0.9, accuracy=1.0),
    ]
    assert gap(bins) == pytest.approx(0.25 * 0.4 + 0.75 * 0.1)


def test_layers_are_framed_filled_and_crossed_out(report):
    layers = report.layers[19:27]
    chart = Page(layer_chart("MACs", si, layers, lambda layer: (layer.macs_before, layer.macs_after)))
    gone = sum(layer.shape_after is None for layer in layers)
    assert gone
    assert len(chart.having("rect", **{"class": "was"})) == len(layers) + 1  # and one in the legend
    assert len(chart.having("rect", **{"class": "bar"})) == len(layers) - gone + 1
    assert len(chart.having("text", **{"class": "mark"})) == gone
    assert "→ removed" in chart.text
