"""What reports say of a conditional model. Every number in here is fixture data, nothing was measured."""

import pytest

from adaptkit.report import html, text
from adaptkit.report.charts import share_chart
from adaptkit.report.schema import CertifiedPath, PathFigures, Paths, Percentiles, Ratio, Report
from tests.report.test_html import HOSTILE, Page

WAYS = """\
ways through the model, over 10,000 test samples (1 thread, batch 1)
             share      mean       p50      p99  accuracy  if all took it
  exit 0   70.00 %  0.310 ms  0.300 ms  0.400 ms   92.00 %         86.00 %
  hit      30.00 %   1.10 ms   1.10 ms  1.30 ms   81.80 %               –
  never     0.00 %         –         –        –         –         88.94 %
  all     100.00 %  0.550 ms  0.320 ms  1.25 ms   88.94 %               –
  slowest way: hit
  against the model it was put around, 1 thread, batch 1: 1.80 × faster (1.70–1.90)
"""


def way(name, share, mean, p50, p99, right, of_all):
    latency = None if mean is None else Percentiles(mean=mean, p50=p50, p90=p99, p99=p99)
    return PathFigures(name=name, share=share, latency_ms=latency, accuracy=right, accuracy_of_all=of_all)


@pytest.fixture
def conditional(report) -> Report:
    """The report of three steps, with two ways that are taken and one that is not."""
    ways = [
        way("exit 0", 0.7, 0.31, 0.30, 0.40, 0.92, 0.86),
        way("hit", 0.3, 1.1, 1.1, 1.3, 0.818, None),
        way("never", 0.0, None, None, None, None, 0.8894),
    ]
    paths = Paths(
        samples=10_000,
        ways=ways,
        slowest="hit",
        weight_bytes=1e5,
        inner_speedup={"t1_b1": Ratio(median=1.8, low=1.7, high=1.9)},
    )
    latency = {"t1_b1": Percentiles(mean=0.55, p50=0.32, p90=1.1, p99=1.25)}
    report.baseline.latency_ms = {"t1_b1": Percentiles(mean=2.2, p50=2.1, p90=2.4, p99=2.5)}
    report.final = report.final.model_copy(
        update={"paths": paths, "latency_ms": latency, "speedup": {"t1_b1": Ratio(median=4, low=3.9, high=4.1)}}
    )
    report.certificate.not_compared = 3000
    report.certificate.paths = [CertifiedPath(name="exit 0", samples=7000, agreement=1, accuracy=0.92)]
    return report


def test_the_table_of_ways(conditional):
    shown = text.render(conditional, width=100)
    place = shown.index("ways through")
    found = [line.split() for line in shown[place:].splitlines()[:8]]
    assert found == [line.split() for line in WAYS.splitlines()]


def test_figures_are_means_and_the_tail_stands_beside_them(conditional):
    rows = [line.split("  ") for line in text.render(conditional, width=100).splitlines()]
    kept = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["latency mean, 1 thread, batch 1", "2.20 ms", "0.550 ms", "4.00 × faster (3.90–4.10)"] in kept
    assert ["latency p99, 1 thread, batch 1", "2.50 ms", "1.25 ms", "2.00 × faster"] in kept
    assert any(row and row[0] == "MACs per sample, expected" for row in kept)


def test_the_page_shows_the_ways(conditional):
    page = Page(html.render(conditional))
    assert "hit 30.00 % 1.10 ms 1.10 ms 1.30 ms 81.80 % –" in page.text
    assert "Slowest way: hit; against the model it was put around, 1 thread, batch 1: 1.80 × faster" in page.text
    assert "10,000 samples, 3,000 of them answered without a network." in page.text
    assert "2.20 ms 2.10 ms 2.40 ms 2.50 ms" in page.text
    bars = page.having("rect", **{"class": "way"})
    assert [float(bar["width"]) for bar in bars] == pytest.approx([238, 102, 0])


def test_a_plain_report_has_none_of_it(report):
    page = html.render(report)
    assert "Ways through" not in page
    assert ">mean<" not in page
    assert "ways through" not in text.render(report)


def test_names_of_ways_are_escaped(conditional):
    conditional.final.paths.ways[0].name = conditional.final.paths.slowest = HOSTILE
    page = Page(html.render(conditional))
    assert len(page.having("script")) == 1
    assert page.text.count(HOSTILE) >= 2


def test_every_share_has_its_name_and_number():
    chart = Page(share_chart({"exit 0": 0.99, "exit 1": 0.01, "a name of " + "many letters" * 5: 0.0}))
    assert chart.text.count("exit 1") == 3  # told, written beside its bar, and on it
    assert "exit 0: 99.00 %; exit 1: 1.00 %" in chart.text
    assert "a name of many lettersmany lettersmany …" in chart.text
    first, second = (float(bar["width"]) for bar in chart.having("rect", **{"class": "way"})[:2])
    assert first == pytest.approx(99 * second)
