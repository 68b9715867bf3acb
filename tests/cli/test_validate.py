"""`adaptkit validate`."""

import json

from adaptkit.recipe import Recipe, read_recipe


def test_a_valid_recipe(run, recipe):
    result = run("validate", recipe)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "tiny.yaml: valid (prune.fake)\n", "")


def test_conditional_entries_come_after_the_steps(run, recipe):
    result = run("validate", recipe, "--set", "conditional=[early_exit]")
    assert (result.exit_code, result.stdout) == (0, "tiny.yaml: valid (prune.fake → early_exit)\n")


def test_quiet(run, recipe):
    result = run("validate", recipe, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_every_problem_is_a_line_on_stderr(run, recipe):
    result = run("validate", recipe, "--set", "steps.0.mac=0.4", "--set", "seed=x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "--set steps.0.mac=0.4: steps.0.prune.fake.mac: unknown key 'mac'; did you mean 'macs'?\n"
        "--set seed=x: seed: expected a whole number, got 'x'\n"
    )


def test_problems_as_json(run, recipe):
    result = run("validate", recipe, "--set", "seed=x", "--json")
    line = "--set seed=x: seed: expected a whole number, got 'x'"
    assert json.loads(result.stdout) == {"error": line, "problems": [line], "exit_code": 2}
    assert (result.exit_code, result.stderr) == (2, "")


def test_a_valid_recipe_as_json_holds_the_whole_recipe(run, recipe):
    found = json.loads(run("validate", recipe, "--json").stdout)
    assert found["valid"] is True
    assert set(found["recipe"]) == set(Recipe.model_fields)
    assert found["recipe"]["steps"][0]["prune.fake"]["macs"] == read_recipe(recipe).steps[0].macs == 0.5


def test_a_name_that_is_no_recipe(run, recipe):
    result = run("validate", "digits-edgy")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: digits-edgy: no such file, and no shipped recipe of that name; did you mean 'digits-edge'?\n"
    )


def test_debug_shows_the_traceback_of_a_wrong_recipe_too(run, recipe):
    result = run("validate", recipe, "--set", "seed=x", "--debug")
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("--set seed=x: seed: expected a whole number, got 'x'\n")
