"""`adaptkit techniques`."""

import json
from typing import Any, ClassVar, Literal

import pytest

from adaptkit import conditionals, techniques
from adaptkit.conditional.base import Conditional
from adaptkit_cli.settings import type_text

LIST = """\
steps:
prune.fake    Remove channels.
distill.fake  Learn from a teacher.

conditional:
early_fake  Leave early.
"""
SHOWN = """\
distill.fake

Learn from a teacher.

Settings:
epochs               number; required.
teacher              mapping | null; default null.
teacher.zoo          text | null; default null. A name in the zoo, such as
                     resnet56_cifar.
"""


class Early(Conditional):
    """Leave early. More about it."""

    name: ClassVar[str] = "early_fake"
    needs: ClassVar[frozenset[str]] = frozenset({"train"})
    exits: int = 2
    """How many."""


@pytest.mark.usefixtures("recipe")
def test_list(run, monkeypatch):
    monkeypatch.setattr(conditionals, "CONDITIONALS", {"early_fake": Early})
    result = run("techniques", "list")
    assert result.stdout == LIST
    assert json.loads(run("techniques", "list", "--json").stdout) == {
        "steps": {"prune.fake": "Remove channels.", "distill.fake": "Learn from a teacher."},
        "conditional": {"early_fake": "Leave early."},
    }


@pytest.mark.usefixtures("recipe")
def test_show(run):
    result = run("techniques", "show", "distill.fake")
    assert result.stdout.startswith(SHOWN)
    assert result.stdout.endswith("width                whole number | 'auto'; default 'auto'.\n")


@pytest.mark.usefixtures("recipe")
def test_show_tells_what_it_needs(run):
    text = run("techniques", "show", "prune.fake").stdout
    assert "Remove channels. The rest stays.\n\nMore about it.\n\nNeeds: calibration\n\nSettings:\n" in text
    assert "macs                    number | null; default null. Share of MACs to keep.\n" in text
    assert "targets                 list of text; default ['*'].\n" in text


@pytest.mark.usefixtures("recipe")
def test_show_as_json_is_the_schema_of_the_settings(run):
    found = json.loads(run("techniques", "show", "distill.fake", "--json").stdout)
    assert found["required"] == ["epochs"]


def test_show_a_conditional_kind(run, monkeypatch):
    monkeypatch.setattr(conditionals, "CONDITIONALS", {"early_fake": Early})
    assert run("techniques", "show", "early_fake").stdout == (
        "early_fake\n\nLeave early. More about it.\n\nNeeds: train\n\nSettings:\n"
        "exits  whole number; default 2. How many.\n"
    )


@pytest.mark.usefixtures("recipe")
def test_an_unknown_technique(run):
    result = run("techniques", "show", "prun.fake")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: prun.fake: no technique of that name; did you mean 'prune.fake'?\n",
    )


@pytest.mark.parametrize("name", [*techniques.TECHNIQUES, *conditionals.CONDITIONALS])
def test_every_technique_explains_itself(run, name):
    kind = (techniques.TECHNIQUES | conditionals.CONDITIONALS)[name]
    result = run("techniques", "show", name)
    assert (result.exit_code, result.stderr) == (0, "")
    for setting in kind.model_fields:
        assert f"\n{setting} " in result.stdout


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (dict[str, Any], "mapping"),
        (tuple[int, float], "list of whole number, number"),
        (tuple[str, ...] | None, "list of text | null"),
        (float | Literal["auto"], "number | 'auto'"),
    ],
)
def test_types_in_words(annotation, text):
    assert type_text(annotation) == text
