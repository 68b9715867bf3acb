"""`adaptkit evaluate`, `profile` and `compare` on conditional models."""

import json
import re

import pytest

from tests.cli import conditional

EVALUATED = """\
run: 81.25 % of 16 test samples right
           share  mean   p50   p99  accuracy  if all took it
exit 0   75.00 %  # ms  # ms  # ms   75.00 %               –
exit 1   25.00 %  # ms  # ms  # ms  100.00 %               –
all     100.00 %  # ms  # ms  # ms   81.25 %               –
slowest way: exit #
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("conditional")
    conditional.write(found)
    return found


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def untimed(text):
    """Replace what a clock decides, and the room it takes."""
    text = re.sub(r"exit \d$", "exit #", re.sub(r"[\d.]+(e-\d+)? ms", "# ms", text), flags=re.MULTILINE)
    return re.sub(r"[ ]+", " ", re.sub(r"[\d.]+ × (fast|slow)er \(.*\)|the same \(.*\)", "# ×", text))


@pytest.mark.parametrize("model", ["run", "single", "single/model.onnx"])
def test_evaluate(run, model):
    result = run("evaluate", model, "--data", "npz:d.npz")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = model if model == "run" else "single/model.onnx"
    assert untimed(result.stdout) == untimed(EVALUATED.replace("run:", f"{shown}:"))


@pytest.mark.parametrize("model", ["run", "single"])
def test_metrics_of_all_ways_together(run, model):
    found = json.loads(run("evaluate", model, "--data", "npz:d.npz", "--metrics", "accuracy,mcc", "--json").stdout)
    assert found["metrics"]["accuracy"]["value"] == found["accuracy"] == 0.8125
    assert found["metrics"]["mcc"]["samples"] == 16
    assert len(found["paths"]["ways"]) == 2


def test_evaluate_as_json(run):
    found = json.loads(run("evaluate", "run", "--data", "npz:d.npz", "--json").stdout)
    assert (found["accuracy"], found["samples"]) == (0.8125, 16)
    ways = {way["name"]: way for way in found["paths"]["ways"]}
    assert {name: (way["share"], way["accuracy"]) for name, way in ways.items()} == {
        "exit 0": (0.75, 0.75),
        "exit 1": (0.25, 1.0),
    }
    for way in ways.values():
        assert 0 < way["latency_ms"]["p50"] <= way["latency_ms"]["p99"]
    assert "paths" not in json.loads(run("evaluate", "plain.onnx", "--data", "npz:d.npz", "--json").stdout)


def test_profile(run):
    result = run("profile", "run", "--data", "npz:d.npz", "--batch-size", "1", "--batch-size", "4")
    lines = untimed(result.stdout).splitlines()
    assert lines[:2] == ["parameters 1", "MACs per sample on the longest way 16"]
    assert lines[3:5] == [f"latency, 1 thread, batch {size} mean # ms, p50 # ms (p99 # ms)" for size in (1, 4)]
    assert lines[-5:] == untimed(EVALUATED).splitlines()[1:]


@pytest.mark.parametrize("model", ["run", "single"])
@pytest.mark.parametrize("command", [["profile"], ["compare", "plain.onnx"]])
def test_without_data_nothing_is_measured(run, command, model):
    result = run(*command, model)
    shown = model if model == "run" or command == ["profile"] else "single/model.onnx"
    shown = "single/model.onnx" if model == "single" else shown
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {shown} is conditional, and what it takes depends on the samples: give real ones, "
        "such as --data digits\n"
    )


def test_compare(run):
    result = run("compare", "plain.onnx", "run", "--data", "npz:d.npz")
    lines = untimed(result.stdout).splitlines()
    assert lines[0] == " A B B against A"
    assert lines[3] == "accuracy 81.25 % 81.25 % nothing lost"
    assert lines[4:7] == ["latency mean, 1 thread, batch 1 # ms # ms # ×", " p50 # ms # ms", " p99 # ms # ms"]
    assert lines[7:9] == ["", "ways through B, slowest: exit #"]
    assert lines[9:] == untimed(EVALUATED).splitlines()[1:-1]


def test_compare_as_json_holds_the_ways_of_both(run):
    found = json.loads(run("compare", "plain.onnx", "single", "--data", "npz:d.npz", "--json").stdout)
    assert [[way["name"] for way in side["ways"]] for side in found["paths"]] == [["whole"], ["exit 0", "exit 1"]]
    means = [side["t1_b1"]["mean"] for side in found["latency_ms"]]
    assert found["speedup"]["t1_b1"]["median"] == pytest.approx(means[0] / means[1])


def test_quiet(run):
    for command in (["evaluate", "run"], ["profile", "run"], ["compare", "run", "plain.onnx"]):
        result = run(*command, "--data", "npz:d.npz", "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
