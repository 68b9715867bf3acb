"""What every command has in common: help, errors, exit codes."""

import json
import re

import pytest

from adaptkit_cli import validate
from adaptkit_cli.main import main

HELP = """\
Usage: adaptkit [OPTIONS] COMMAND [ARGS]...

  Make a trained PyTorch model small, fast and frugal enough for an edge server,
  and prove it.

Options:
  --debug     Show where an error came from.
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  compare     Hold artifacts side by side.
  compress    Run a recipe.
  evaluate    Measure an artifact's accuracy.
  profile     Measure what a model costs.
  recipes     List, show and copy the shipped recipes.
  techniques  List and explain the techniques.
  validate    Check a recipe.

  Example:
    adaptkit compress digits-edge
"""


def leaves():
    for name, command in main.commands.items():
        for inner in getattr(command, "commands", [""]):
            yield [name, inner] if inner else [name]


def test_help(run):
    result = run("--help")
    assert (result.exit_code, result.stdout) == (0, HELP)


@pytest.mark.parametrize("path", list(leaves()), ids=" ".join)
def test_the_help_of_every_command_ends_with_a_worked_example(run, path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Example:\n    adaptkit {' '.join(path)}.*\n$", result.stdout)


def test_version(run):
    assert run("--version").stdout == "adaptkit, version 0.1.0\n"


def test_a_usage_error_exits_2(run):
    result = run("validate")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Usage: adaptkit validate [OPTIONS] RECIPE\nTry 'adaptkit validate --help' for help.\n\n"
        "Error: Missing argument 'RECIPE'.\n"
    )


def test_a_mistyped_command_exits_2(run):
    result = run("validat")
    assert result.exit_code == 2
    assert "Error: No such command 'validat'. (Did you mean one of: 'evaluate', 'validate'?)" in result.stderr


def test_a_usage_error_as_json(run):
    result = run("validate", "--json")
    assert json.loads(result.stdout) == {"error": "Missing argument 'RECIPE'.", "exit_code": 2}
    assert result.stderr == ""


@pytest.fixture
def broken(monkeypatch):
    """Make `validate` fail with an error that no user can put right."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(validate.validate, "callback", fail)


@pytest.mark.usefixtures("broken")
def test_a_bug_of_ours_exits_1_without_a_traceback(run):
    result = run("validate", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: this is a bug of adaptkit, please report it with what the same command prints with --debug:"
        " ZeroDivisionError: division by zero\n"
    )


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("args", [("--debug", "validate", "x"), ("validate", "x", "--debug")])
def test_debug_shows_the_traceback(run, args):
    result = run(*args)
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "report it with the lines above: ZeroDivisionError" in result.stderr


@pytest.mark.usefixtures("broken")
def test_a_bug_as_json(run):
    found = json.loads(run("validate", "x", "--json").stdout)
    assert found["exit_code"] == 1
    assert found["error"].endswith("ZeroDivisionError: division by zero")


def test_an_interruption_exits_130_with_one_line(run, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(validate.validate, "callback", interrupt)
    result = run("validate", "x")
    assert (result.exit_code, result.stderr.strip()) == (130, "Interrupted.")
