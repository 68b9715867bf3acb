"""Which model dominates which, in one sentence."""

import pytest

from adaptkit.report.dominance import better_in, dominates, verdict
from adaptkit.report.schema import Contender, Percentiles


def model(label, accuracy=0.9, ms=10.0, size=100, energy=5.0, mean=None):
    latency = Percentiles(p50=ms, p90=ms, p99=ms, mean=mean)
    return Contender(
        label=label, file=label, parameters=1, bytes=size, latency_ms={"t1_b1": latency}, speedup={}, accuracy=accuracy,
        energy_mj=energy,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (
            [model("A"), model("B", 0.95, 5, 50, 2)],
            "B dominates A: it is more accurate, faster, smaller and more frugal, and worse in nothing.",
        ),
        ([model("A"), model("B", size=101)], "A dominates B: it is smaller, and worse in nothing."),
        (
            [model("A"), model("B", 0.899, 5, 50)],
            "None dominates another: A is more accurate than B, B is faster and smaller than A.",
        ),
        ([model("A"), model("B")], "A and B are the same in all that was measured."),
        ([model("A"), model("B", ms=10.1, energy=4.95)], "A and B are the same in all that was measured."),
        (
            [model("A"), model("B", ms=5), model("C", 0.95)],
            "B dominates A (faster); C dominates A (more accurate); B and C are dominated by none.",
        ),
        (
            [model("A", 0.9), model("B", 0.8), model("C", 0.7)],
            "A dominates B (more accurate); A dominates C (more accurate); B dominates C (more accurate); A is "
            "dominated by none.",
        ),
    ],
)
def test_the_sentence(models, said):
    assert verdict(models) == said


def test_what_was_not_measured_does_not_count():
    assert better_in(model("A", accuracy=None), model("B", 0.1, size=200)) == ["bytes"]
    assert dominates(model("A", energy=None), model("B", size=200))


def test_the_mean_counts_where_calls_differ():
    assert better_in(model("A", ms=1, mean=20.0), model("B", ms=9, mean=10.0)) == []
    assert better_in(model("B", ms=9, mean=10.0), model("A", ms=1, mean=20.0)) == ["latency"]


def test_accuracy_counts_for_neither_where_no_difference_is_shown():
    one, other = model("A", accuracy=0.91), model("B", accuracy=0.9, size=50)
    assert verdict([one, other]).startswith("None dominates another: A is more accurate than B")
    assert verdict([one, other], {frozenset("AB")}) == (
        "B dominates A: it is smaller, and worse in nothing. Accuracy counts only where a difference is shown."
    )
