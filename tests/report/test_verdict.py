"""The first lines of a report: bad news as plain as good news. Every number in here is fixture data."""

import pytest
from scipy.stats import binomtest

from adaptkit.report import html
from adaptkit.report.schema import Ratio
from adaptkit.report.verdict import accuracy_interval, headline, verdict
from tests.report.test_html import Page


def test_what_was_asked_for_was_found(report):
    assert headline(report) == "All 2 gates passed."
    report.gates = report.gates[:1]
    assert headline(report) == "The one gate passed."
    report.gates = []
    assert headline(report) == "The recipe sets no gates, so nothing was asked for."


def test_what_failed_is_named_with_both_values(report):
    report.gates[0].passed, report.gates[0].found = False, 0.0312
    assert headline(report) == "Failed: max_accuracy_drop allows at most 1.00 points, found was 3.12 points."
    report.certificate.passed = report.gates[1].passed = False
    assert headline(report).startswith("The file does not compute what the PyTorch model computes: do not use it.")
    assert "min_speedup allows at least 3.50 ×" in headline(report)


def test_numbers_have_units_and_spread(report):
    found = verdict(report)
    assert found.speed.detail == "p50 2.31 ms → 0.636 ms at 1 thread, batch 1; quartiles of the ratio 3.56–3.74"
    assert found.size.detail == "3.478 MB → 809.0 kB on disk"
    assert found.accuracy.detail == (
        "89.71 % → 88.94 %: 77 fewer of 10,000 test samples right; 95 % interval after 88.31–89.55 %"
    )
    assert [fact.worse for fact in (found.speed, found.size, found.accuracy)] == [False, False, True]


def test_worse_is_said_to_be_worse(report):
    report.final.speedup["t1_b1"] = Ratio(median=0.5, low=0.4, high=0.6)
    report.final.bytes = 2 * report.baseline.bytes
    found = verdict(report)
    assert str(found).startswith("2.00 × slower, 2.00 × larger")
    assert found.speed.worse
    assert found.size.worse
    assert len(Page(html.render(report)).having("p", **{"class": "worse"})) == 3


def test_a_spread_on_both_sides_of_one_is_no_clear_difference(report):
    report.final.speedup["t1_b1"] = Ratio(median=1.1, low=0.9, high=1.3)
    assert verdict(report).speed.detail.endswith("0.900–1.30: no clear difference")


@pytest.mark.parametrize(("right", "samples"), [(0, 20), (20, 20), (357, 359), (8894, 10_000)])
def test_the_interval_is_the_exact_one(right, samples):
    expected = binomtest(right, samples).proportion_ci(0.95, "exact")
    assert accuracy_interval(right / samples, samples) == pytest.approx((expected.low, expected.high), abs=1e-6)
