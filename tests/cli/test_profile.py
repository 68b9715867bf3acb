"""`adaptkit profile`, with known figures."""

import json

import pytest

from adaptkit.profiling import summary
from adaptkit.report.schema import Figures, Percentiles
from adaptkit.specs import ProfileSpec

FIGURES = Figures(
    parameters=11_689_512,
    macs=1_814_073_344,
    bytes=46_800_000,
    latency_ms={"t1_b1": Percentiles(p50=50, p90=60, p99=70)},
    speedup={},
    peak_memory_bytes=120_000_000,
    energy_mj=12.5,
)

TABLE = """\
parameters                                  11.69 M
MACs per sample                             1.814 G
file                                       46.80 MB
latency, 1 thread, batch 1    50.0 ms (p90 60.0 ms)
peak memory                                120.0 MB
energy per sample (estimate)                12.5 mJ
"""


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the profiler."""
    found: list[tuple[str, ProfileSpec]] = []

    def profile_file(spec, profile):
        found.append((spec, profile))
        return FIGURES

    monkeypatch.setattr(summary, "profile_file", profile_file)
    return found


def test_the_table(run, asked):
    result = run("profile", "zoo:lenet5_digits", "--threads", "1", "--threads", "2", "--batch-size", "16")
    assert (result.exit_code, result.stdout) == (0, TABLE)
    assert asked == [("zoo:lenet5_digits", ProfileSpec(threads=(1, 2), batch_sizes=(16,)))]


def test_json_and_quiet(run, asked):
    assert Figures.model_validate_json(run("profile", "x.onnx", "--json").stdout) == FIGURES
    assert run("profile", "x.onnx", "-q").stdout == ""
    assert len(asked) == 2


def test_a_model_that_is_not_there(run):
    result = run("profile", "nothing", "--json")
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (2, 2)
    assert "nothing is not there: give an ONNX file" in json.loads(result.stdout)["error"]
