"""How results show themselves in a notebook."""

from html.parser import HTMLParser

from adaptkit.report.schema import (
    Bandwidth,
    Contender,
    LayerFigures,
    Machine,
    Network,
    PairedAccuracy,
    Percentiles,
    Profile,
    Ratio,
    SideBySide,
)

NAME = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The tags of a page, the text of its headings of columns and rows, and whether every tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.headings = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "th":
            assert dict(attrs)["scope"] in ("col", "row")
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "th":
            self.headings[-1] += data


def profile():
    latency = {"t1_b1": Percentiles(p50=1, p90=2, p99=3)}
    layer = LayerFigures(name=NAME, kind="Conv", parameters=1, macs=2, bytes=3, time_us=4, share=1, reason="<slow>")
    return Profile(
        model=NAME,
        parameters=1,
        macs=2,
        bytes=3,
        latency_ms=latency,
        speedup={},
        machine=Machine(threads=2, gflops=1, int8_gops=2, bandwidths=[Bandwidth(bytes=1, gb_per_s=1)], start_us=1),
        networks=[Network(file=NAME, batch_size=1, call_us=5, kernels_us=4, layers=[layer])],
    )


def test_a_profile():
    page = Page(profile()._repr_html_())
    assert "script" not in page.tags
    assert page.tags.count("table") == page.tags.count("caption") == 2
    assert {"parameters", "MACs per sample", "layer", "why slow", NAME} <= set(page.headings)


def test_figures_alone(report):
    page = Page(report.final._repr_html_())
    assert page.tags.count("table") == 1
    assert "parameters" in page.headings


def test_a_report(report):
    text = report.model_copy(update={"name": NAME})._repr_html_()
    page = Page(text)
    assert "script" not in page.tags
    assert {"before", "after", "gate", "file size"} <= set(page.headings)
    assert "FAILED" in text or "passed" in text


def test_a_comparison():
    pair = PairedAccuracy(difference=-0.1, low=-0.2, high=0, lost=3, gained=2, p_value=0.6)
    contenders = [
        Contender(
            label=label,
            file=NAME,
            parameters=1,
            bytes=2,
            latency_ms={"t1_b1": Percentiles(p50=1, p90=2, p99=3)},
            speedup={"t1_b1": Ratio(median=1, low=1, high=1)},
            accuracy=0.5,
            against_first=against,
        )
        for label, against in (("A", None), ("B", pair))
    ]
    text = SideBySide(contenders=contenders, verdict=NAME)._repr_html_()
    page = Page(text)
    assert "script" not in page.tags
    assert {"A", "B", "B against A", "file", "accuracy"} <= set(page.headings)
