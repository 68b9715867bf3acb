import pytest

from adaptkit.gates import failures, judge
from adaptkit.report.schema import Figures, Percentiles, Ratio
from adaptkit.specs import GateSpec


def _figures(accuracy: float, p50: float, speedup: float, size: int) -> Figures:
    return Figures(
        accuracy=accuracy,
        parameters=1,
        macs=1,
        bytes=size,
        latency_ms={"t1_b1": Percentiles(p50=p50, p90=9.0, p99=9.0)},
        speedup={"t1_b1": Ratio(median=speedup, low=0.1, high=99.0)},
    )


BASELINE, FINAL = _figures(0.90, 4.0, 1.0, 400), _figures(0.89, 1.0, 3.5, 100)


def test_a_gate_of_numbers_at_its_limit():
    before, after = (
        BASELINE.model_copy(update={"accuracy": None, "r2": 0.5}),
        FINAL.model_copy(update={"accuracy": None, "r2": 0.49}),
    )
    for limit, passed in ((0.01, True), (0.0099, False)):
        (judged,) = judge(GateSpec(max_r2_drop=limit), before, after)
        assert (judged.found, judged.passed) == (0.01, passed)


@pytest.mark.parametrize(
    ("gate", "limit", "passed"),
    [
        ("max_accuracy_drop", 0.01, True),
        ("max_accuracy_drop", 0.0099, False),
        ("min_speedup", 3.5, True),
        ("min_speedup", 3.51, False),
        ("max_bytes", 100, True),
        ("max_bytes", 99, False),
        ("max_latency_ms", 1.0, True),
        ("max_latency_ms", 0.99, False),
    ],
)
def test_each_gate_at_its_limit(gate, limit, passed):
    (judged,) = judge(GateSpec(**{gate: limit}), BASELINE, FINAL)
    assert (judged.name, judged.limit, judged.passed) == (gate, limit, passed)
    assert (failures([judged]) is None) == passed


def test_no_gates_no_verdicts():
    assert judge(GateSpec(), BASELINE, FINAL) == []
    assert failures([]) is None


def test_every_failure_is_in_one_sentence():
    gates = judge(GateSpec(max_accuracy_drop=0.001, min_speedup=9.0), BASELINE, FINAL)
    assert failures(gates) == (
        "gate failed: max_accuracy_drop is 0.01, allowed is at most 0.001; min_speedup is 3.5, allowed is at least 9"
    )
