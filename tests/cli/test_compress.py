"""`adaptkit compress`, over a pipeline that only notes what it was asked."""

import json
from pathlib import Path

import pytest

from adaptkit import pipeline
from adaptkit.errors import GateFailed, RunFolderError
from adaptkit.report.schema import Certificate, Figures, Gate, Report


def make_report(passed: bool) -> Report:
    figures = Figures(accuracy=0.9, parameters=10, macs=20, bytes=30, latency_ms={}, speedup={})
    certificate = Certificate(
        passed=True,
        samples=10,
        accuracy_torch=0.9,
        accuracy_onnx=0.9,
        agreement=1,
        max_error=0,
        mean_error=0,
        tolerance=0.001,
    )
    return Report(
        name="tiny",
        baseline=figures,
        steps=[],
        final=figures,
        gates=[Gate(name="min_speedup", limit=2, found=1, passed=passed)],
        certificate=certificate,
        layers=[],
        recipe="",
        lock="",
        environment={},
        seconds=1,
        created="2026-11-23",
    )


@pytest.fixture
def calls(monkeypatch, recipe):
    """What the pipeline was called with; set its `outcome` to raise something."""

    class Calls(list):
        outcome = None

    found = Calls()

    def compress(recipe, output, *, resume, show, progress):
        found.append((recipe, output, resume, progress))
        print("noise of a library")
        if show is not None:
            show("step 1 done")
        if found.outcome is not None:
            raise found.outcome
        return make_report(True)

    monkeypatch.setattr(pipeline, "compress", compress)
    return found


def test_the_report_goes_to_stdout_and_everything_else_to_stderr(run, calls):
    result = run("compress", "tiny.yaml")
    assert result.exit_code == 0
    assert result.stdout.startswith("tiny: ")
    assert result.stderr == "noise of a library\nstep 1 done\n"
    ((recipe, output, resume, progress),) = calls
    assert (recipe.name, output, resume, progress) == ("tiny", Path("runs/tiny"), False, True)


def test_options_reach_the_pipeline(run, calls):
    run("compress", "tiny.yaml", "--output", "there", "--set", "steps.0.macs=0.3", "--resume", "-q")
    ((recipe, output, resume, progress),) = calls
    assert (recipe.steps[0].macs, output, resume, progress) == (0.3, Path("there"), True, False)


def test_json_is_one_document(run, calls):
    result = run("compress", "tiny.yaml", "--json")
    assert Report.model_validate_json(result.stdout) == make_report(True)


def test_quiet_prints_nothing(run, calls):
    result = run("compress", "tiny.yaml", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "noise of a library\n")


def test_a_failed_gate_exits_3_with_the_report(run, calls):
    calls.outcome = GateFailed("min_speedup: 1 is below 2", make_report(False))
    result = run("compress", "tiny.yaml")
    assert result.exit_code == 3
    assert result.stdout.startswith("tiny: ")
    assert result.stderr.endswith("Error: min_speedup: 1 is below 2\n")


def test_a_failed_gate_as_json_is_the_report(run, calls):
    calls.outcome = GateFailed("min_speedup: 1 is below 2", make_report(False))
    result = run("compress", "tiny.yaml", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["gates"][0]["passed"] is False


def test_an_interruption_tells_how_to_go_on(run, calls):
    calls.outcome = KeyboardInterrupt()
    result = run("compress", "tiny.yaml", "--set", "steps.0.targets=[a b]")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Interrupted. To go on:  adaptkit compress tiny.yaml --output runs/tiny --set 'steps.0.targets=[a b]' --resume"
    )


def test_an_error_of_the_user_exits_2(run, calls):
    calls.outcome = RunFolderError("runs/tiny is in use")
    result = run("compress", "tiny.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("Error: runs/tiny is in use\n")
    result = run("compress", "tiny.yaml", "--json")
    assert json.loads(result.stdout) == {"error": "runs/tiny is in use", "exit_code": 2}


def test_a_wrong_recipe_never_reaches_the_pipeline(run, calls):
    assert run("compress", "tiny.yaml", "--set", "seed=x").exit_code == 2
    assert calls == []
