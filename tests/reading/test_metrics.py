"""Metrics and studies as recipes and `--metrics` name them."""

import pytest

from adaptkit.errors import DataError, RecipeError
from adaptkit.reading.metrics import parse_metrics
from adaptkit.reading.schema import recipe_schema
from adaptkit.recipe import Recipe, dump_recipe, parse_recipe
from adaptkit.studies import STUDIES, metrics_of, studies_of
from adaptkit.study.attacked import RobustAccuracy
from adaptkit.study.corrupted import Corruptions

TEXT = "{version: 1, name: tiny, model: {zoo: lenet5_digits}, data: {digits: true}, steps: [], metrics: [%s]}"


def test_a_recipe_and_the_command_line_read_alike():
    text = "f1, corruptions, robust_accuracy: {radius: 0.1, norm: l2}"
    wanted = ("f1", Corruptions(), RobustAccuracy(radius=0.1, norm="l2"))
    assert parse_metrics(text) == parse_recipe(TEXT % text).metrics == wanted
    assert metrics_of(wanted) == ["f1"]
    assert studies_of(wanted) == wanted[1:]
    assert parse_metrics("") == ()


def test_a_recipe_is_written_and_read_back():
    recipe = parse_recipe(TEXT % "f1, corruptions: {samples: 7}", overrides=["metrics.1.severities=[2]"])
    assert recipe.metrics == ("f1", Corruptions(samples=7, severities=(2,)))
    assert parse_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corruption", "no metric is called 'corruption'; did you mean 'corruptions'? There are accuracy, top2,"),
        ("corruption: {samples: 3}", "no metric is called 'corruption'"),
        ("f1: {samples: 3}", "f1: has no settings; write f1 alone"),
        ("corruptions: {sample: 3}", "corruptions.sample: unknown key 'sample'; did you mean 'samples'?"),
        ("corruptions: {samples: 0}", "corruptions.samples: expected more than 0, got 0"),
        ("corruptions: {severities: [6]}", "corruptions.severities.0: expected at most 5, got 6"),
        ("corruptions: {kinds: []}", "corruptions.kinds: expected a list of 1 or more, got []"),
        ("robust_accuracy: {norm: l1}", "robust_accuracy.norm: expected 'linf' or 'l2', got 'l1'"),
        ("robust_accuracy: {radius: 0}", "robust_accuracy.radius: expected more than 0, got 0"),
        ("communication: {up: 1e6}", "communication: a link has up, down and round_trip; give down and round_trip too"),
        ("3", "expected a metric and its settings, such as corruptions: {}; got 3"),
        ("f1,,", "not YAML: "),
    ],
)
def test_what_is_wrong_is_said_once(text, message):
    with pytest.raises(DataError) as caught:
        parse_metrics(text)
    assert str(caught.value).startswith(message)
    with pytest.raises(RecipeError, match="recipe:1: "):
        parse_recipe(TEXT % text)


def test_a_recipe_made_in_a_script_is_checked_too():
    made = parse_recipe(TEXT % "f1").model_dump()
    with pytest.raises(ValueError, match="no metric is called 'f2'"):
        Recipe(**made | {"metrics": ("f2",)})


def test_the_schema_has_names_and_studies():
    forms = recipe_schema()["properties"]["metrics"]["items"]["anyOf"]
    names = [form["const"] for form in forms if "const" in form]
    assert names == [*STUDIES]
    assert "f1" in forms[-1]["enum"]
