"""`adaptkit recipes`, and the recipes that are shipped."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from adaptkit.recipe import dump_recipe, parse_recipe
from adaptkit_cli import recipes, shipped

FILES = {path.stem: path for path in sorted(Path(recipes.__file__).parents[1].glob("recipes/*.yaml"))}


@pytest.fixture
def two_recipes(tmp_path, monkeypatch):
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "alpha.yaml").write_text("# The first, for\n# small things. More.\nversion: 1\n")
    (folder / "long-name.yaml").write_text("version: 1\n")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("two_recipes")
def test_list(run):
    assert run("recipes", "list").stdout == "alpha      The first, for small things\nlong-name\n"
    assert json.loads(run("recipes", "list", "--json").stdout) == {
        "alpha": "The first, for small things",
        "long-name": "",
    }


@pytest.mark.usefixtures("two_recipes")
def test_show(run):
    assert run("recipes", "show", "long-name").stdout == "version: 1\n"
    result = run("recipes", "show", "alhpa")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: alhpa: no shipped recipe of that name; did you mean 'alpha'?\n"


@pytest.mark.usefixtures("two_recipes")
def test_copy_never_overwrites_unless_forced(run):
    result = run("recipes", "copy", "alpha")
    assert (result.exit_code, result.stdout) == (
        0,
        "alpha.yaml written: edit it, then run  adaptkit compress alpha.yaml\n",
    )
    Path("alpha.yaml").write_text("mine")
    result = run("recipes", "copy", "alpha")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: alpha.yaml is there already: give another name, or --force to replace it\n",
    )
    assert Path("alpha.yaml").read_text() == "mine"
    assert run("recipes", "copy", "alpha", "--force").exit_code == 0
    assert Path("alpha.yaml").read_text().startswith("# The first")


@pytest.mark.usefixtures("two_recipes")
def test_copy_into_a_folder_and_into_none(run, tmp_path):
    (tmp_path / "mine").mkdir()
    assert run("recipes", "copy", "long-name", "mine").exit_code == 0
    assert (tmp_path / "mine" / "long-name.yaml").is_file()
    result = run("recipes", "copy", "long-name", "nowhere/x.yaml")
    assert (result.exit_code, result.stderr) == (2, "Error: cannot write nowhere/x.yaml: No such file or directory\n")


def test_a_shipped_recipe_goes_by_its_name_and_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(FILES))
    assert shipped.find_recipe(name) == shipped.find_recipe(f"{name}.yaml") == FILES[name]
    Path(f"{name}.yaml").touch()
    assert shipped.find_recipe(f"{name}.yaml") == Path(f"{name}.yaml")


def test_the_schema_is_a_schema(run):
    schema = json.loads(run("recipes", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.fixture
def validator(run):
    return jsonschema.Draft202012Validator(json.loads(run("recipes", "schema").stdout))


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_recipe_fits_the_reader_and_the_schema(name, tmp_path, monkeypatch, validator):
    text = FILES[name].read_text(encoding="utf-8")
    recipe = parse_recipe(text, name, env=_Anywhere(tmp_path), overrides=_without_files(text))
    assert recipe.name == name
    document = YAML(typ="safe", pure=True).load(dump_recipe(recipe))
    assert [error.message for error in validator.iter_errors(document)] == []


class _Anywhere(dict):
    """Every variable is set, to a folder that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name, default=None):
        return str(self.folder)


def _without_files(text: str) -> list[str]:
    """Leave out weights and data that only a user has."""
    places = {
        "model": "model: ",
        **{f"conditional.0.{kind}.models.0": f"- {kind}:" for kind in ("cascade", "selector")},
    }
    without = [f"{place}.weights=null" for place, mark in places.items() if mark in text and ".safetensors" in text]
    return without + (["data.imagefolder=/"] if "imagefolder" in text else [])


@pytest.mark.parametrize(
    "change",
    [
        ("seed: 0", "sed: 0"),
        ("opset: 20", "opset: 99"),
        ("zoo: lenet5_digits", "zoo: 3"),
        ("prune.fake", "prune.other"),
        ("macs: 0.5", "macz: 0.5"),
        ("conditional: []", "conditional: [no_such_thing]"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(recipe, validator, change):
    text = dump_recipe(parse_recipe(Path(recipe).read_text()))
    assert not list(validator.iter_errors(YAML(typ="safe", pure=True).load(text)))
    assert change[0] in text
    assert list(validator.iter_errors(YAML(typ="safe", pure=True).load(text.replace(*change))))


def test_the_schema_takes_a_bare_name_only_where_every_setting_has_a_default(recipe, validator):
    document = YAML(typ="safe", pure=True).load(Path(recipe).read_text())
    assert validator.is_valid({**document, "steps": ["prune.fake"]})
    assert validator.is_valid({**document, "steps": [{"prune.fake": None}]})
    assert not validator.is_valid({**document, "steps": ["distill.fake"]})
    assert not validator.is_valid({**document, "steps": [{"distill.fake": None}]})
