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
    assert lines[7].startswith("energy per sample")
    assert lines[8:10] == ["", "ways through B, slowest: exit #"]
    assert lines[10:14] == untimed(EVALUATED).splitlines()[1:-1]
    assert lines[15].startswith("B against A: +0.00 points (95 % interval none); 0 samples lost, 0 gained")


def test_compare_metrics_on_the_same_samples(run):
    given = ("compare", "plain.onnx", "run", "--data", "npz:d.npz", "--metrics", "accuracy,cross_entropy")
    found = json.loads(run(*given, "--json").stdout)
    first, second = found["contenders"]
    assert first["metrics_against_first"] == {}
    assert list(second["metrics"]) == list(second["metrics_against_first"]) == ["accuracy", "cross_entropy"]
    assert second["metrics"]["accuracy"]["value"] == second["accuracy"]
    values = [side["metrics"]["cross_entropy"]["value"] for side in (first, second)]
    apart = second["metrics_against_first"]["cross_entropy"]
    assert apart["value"] == pytest.approx(values[1] - values[0])
    (line,) = [line.split() for line in run(*given).stdout.splitlines() if line.startswith("cross_entropy")]
    assert len(line) == 7
    assert line[4:] == [f"({apart['low']:.4g}", "to", f"{apart['high']:.4g})"] or line[3] == f"{apart['value']:.4g}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "f1"), "metrics are of answers to data: give --data, such as --data digits"),
        (("--data", "npz:d.npz", "--metrics", "corruptions"), "corruptions is a study, which compare does not pair"),
        (("--data", "npz:d.npz", "--metrics", "rmse"), "rmse: needs a model with exactly 1 output a sample; this one"),
        (("--data", "npz:d.npz", "--metrics", "f2"), "no metric is called 'f2'"),
    ],
)
def test_metrics_that_cannot_be_compared(run, arguments, message):
    result = run("compare", "plain.onnx", "run", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {message}")


def test_compare_as_json_holds_the_ways_of_both(run):
    found = json.loads(run("compare", "plain.onnx", "single", "--data", "npz:d.npz", "--json").stdout)
    sides = found["contenders"]
    assert [[way["name"] for way in side["paths"]["ways"]] for side in sides] == [["whole"], ["exit 0", "exit 1"]]
    means = [side["latency_ms"]["t1_b1"]["mean"] for side in sides]
    assert sides[1]["speedup"]["t1_b1"]["median"] == pytest.approx(means[0] / means[1])
    assert (sides[0]["energy_mj"] is None, sides[1]["energy_mj"]) == (False, None)


def test_profile_of_the_layers_of_every_network(run):
    found = json.loads(run("profile", "run", "--data", "npz:d.npz", "--json").stdout)
    assert [network["file"] for network in found["networks"]] == ["stages/0.onnx", "stages/1.onnx"]
    assert all(network["layers"] for network in found["networks"])
    single = json.loads(run("profile", "single", "--data", "npz:d.npz", "--json").stdout)
    assert sum(layer["macs"] for layer in single["networks"][0]["layers"]) == 16


def test_quiet(run):
    for command in (["evaluate", "run"], ["profile", "run"], ["compare", "run", "plain.onnx"]):
        result = run(*command, "--data", "npz:d.npz", "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
