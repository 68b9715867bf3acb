"""Recipes: every problem at once, each on one line with its place, its key and what was probably meant."""

import contextlib
import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit import techniques
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.errors import RecipeError
from adaptkit.recipe import Recipe, dump_recipe, parse_recipe, read_recipe
from adaptkit.specs import DataSpec, ExportSpec, GateSpec, ModelSpec, Normalization, ProfileSpec
from adaptkit.training.settings import FitSettings
from tests.reading.fake_techniques import FAKES, Distill, Prune

GOOD = """\
version: 1
name: tiny
model: {zoo: lenet5_digits}
data: {digits: true}
steps:
  - prune.fake: {macs: 0.5, importance: taylor}
  - distill.fake:
      epochs: 1.0e-1
"""


@pytest.fixture(autouse=True)
def _fake_techniques(monkeypatch):
    monkeypatch.setattr(techniques, "TECHNIQUES", FAKES)


def problems(text: str, *overrides: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(text, "r.yaml", overrides, env=env or {})
    assert str(raised.value) == "\n".join(raised.value.problems)
    return list(raised.value.problems)


def problem(text: str, *overrides: str, env: dict[str, str] | None = None) -> str:
    (only,) = problems(text, *overrides, env=env)
    return only


def test_a_recipe_becomes_techniques_and_sections():
    recipe = parse_recipe(GOOD)
    assert recipe.steps == (Prune(macs=0.5, importance="taylor"), Distill(epochs=0.1))
    assert (recipe.name, recipe.seed, recipe.export) == ("tiny", 0, ExportSpec())
    assert recipe.model.zoo == "lenet5_digits"


def test_a_step_may_be_a_bare_name_or_have_empty_settings():
    text = (
        "{version: 1, name: a, model: {zoo: lenet5_digits}, data: {digits: true}, steps: [prune.fake, {prune.fake: }]}"
    )
    assert parse_recipe(text).steps == (Prune(), Prune())


def test_an_empty_optional_section_says_nothing():
    assert parse_recipe(GOOD + "gates:\nexport:\n").gates == GateSpec()


def test_every_problem_is_told_at_once_from_the_top_down():
    text = """\
version: 2
name: ../x
modell: 1
model: {zoo: lenet5_digits, torchvision: b, wieghts: x}
data:
  npz: nope.npz
  normalize: imagnet
  batch_size: 1.5
steps:
  - prune.fake: {macs: 1.5, mac: 3}
  - distil.fake: {}
  - distill.fake: {epochs: a}
"""
    assert problems(text) == [
        "r.yaml:1: version: expected 1, got 2",
        "r.yaml:2: name: expected up to 100 letters, digits, '.', '_', '-', the first a letter or digit; got '../x'",
        "r.yaml:3: modell: unknown key 'modell'; did you mean 'model'?",
        "r.yaml:4: model.wieghts: unknown key 'wieghts'; did you mean 'weights'?",
        "r.yaml:4: model: give exactly one of zoo, torchvision, python; found zoo and torchvision",
        f"r.yaml:6: data.npz: no such file: {Path.cwd() / 'nope.npz'}",
        "r.yaml:7: data.normalize: expected 'imagenet', 'none' or a mapping with mean, std, got 'imagnet';"
        " did you mean 'imagenet'?",
        "r.yaml:8: data.batch_size: expected a whole number, got 1.5",
        "r.yaml:10: steps.0.prune.fake.macs: expected less than 1, got 1.5",
        "r.yaml:10: steps.0.prune.fake.mac: unknown key 'mac'; did you mean 'macs'?",
        "r.yaml:11: steps.1.distil.fake: unknown technique 'distil.fake'; did you mean 'distill.fake'?",
        "r.yaml:12: steps.2.distill.fake.epochs: expected a number, got 'a'",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: true", "r.yaml:9: seed: expected a whole number, got true"),
        ("seed: '3'", "r.yaml:9: seed: expected a whole number, got '3'; leave out the quotes"),
        ("seed: -1", "r.yaml:9: seed: expected at least 0, got -1"),
        ("seed: 4294967296", "r.yaml:9: seed: expected less than 4294967296, got 4294967296"),
        ("seed: [1]", "r.yaml:9: seed: expected a whole number, got [1]"),
        ("export: 3", "r.yaml:9: export: expected a mapping with opset, single_file, normalize_in_graph, tolerance,"),
        ("export: {tolerance: .inf}", "r.yaml:9: export.tolerance: expected a finite number, got .inf"),
        ("export: {tolerance: .nan}", "r.yaml:9: export.tolerance: expected a finite number, got .nan"),
        ("export: {single_file: no}", "r.yaml:9: export.single_file: expected true or false, got 'no'; write false"),
        ("export: {opset: 99}", "r.yaml:9: export.opset: expected at most 23, got 99"),
        ("profile: {threads: []}", "r.yaml:9: profile.threads: expected a list of 1 or more, got []"),
        ("profile: {threads: 1}", "r.yaml:9: profile.threads: expected a list, got 1; write [1]"),
        ("profile:\n  threads:\n  - 1\n  - 0", "r.yaml:12: profile.threads.1: expected more than 0, got 0"),
        ("gates: {max_bites: 3}", "r.yaml:9: gates.max_bites: unknown key 'max_bites'; did you mean 'max_bytes'?"),
        (
            "conditional: [early_exi]",
            "r.yaml:9: conditional.0.early_exi: unknown kind of conditional computation 'early_exi'; did you mean",
        ),
        (
            "conditional: [early_exit, early_exit]",
            "r.yaml:9: conditional.1: early_exit takes a network apart: put it first",
        ),
        ("conditional: early_exit", "r.yaml:9: conditional: expected a list, each entry starting with a dash; got 'ea"),
        ("conditional: [{early_exit: {exits: 0}}]", "r.yaml:9: conditional.0.early_exit.exits"),
        ("colour: red", "r.yaml:9: colour: unknown key 'colour'; allowed: version, name, seed, model, data, steps,"),
        ("seed: 1\nseed: 2", "r.yaml:10: seed: given twice, first at r.yaml:9; keep one"),
        ("1: 2", "r.yaml:9: a key must be text, got '1'; put it in quotes"),
        ("seed: !!python/object:os.system 1", "r.yaml:9: seed: the tag 'python/object:os.system' is not allowed"),
        ("seed: !!int abc", "r.yaml:9: seed: cannot read 'abc' as int"),
        ("seed: ${SEED}", "r.yaml:9: seed: variable SEED is not set: run  export SEED=...  or write ${SEED:-default}"),
        ("seed: ${1X}", "r.yaml:9: seed: cannot read '${1X}': write ${NAME}, ${NAME:-default}, or $${ for a plain ${"),
        (
            "metrics: [f1, acuracy]",
            "r.yaml:9: metrics.1: no metric is called 'acuracy'; did you mean 'accuracy'? There are accuracy, top2, "
            "top3, top5, top10, precision, recall, f1, precision_positive, recall_positive, f1_positive, mcc, roc_auc, "
            "ece, cross_entropy, nll, kl, leep, mse, rmse, mae, max_error, r2, explained_variance, robust_accuracy, ",
        ),
        ("metrics: f1", "r.yaml:9: metrics: expected a list, such as [accuracy, f1]; got 'f1'"),
        ("metrics: [1]", "r.yaml:9: metrics.0: expected a metric and its settings, such as corruptions: {}; got 1"),
        ("gates:\n\tmax_bytes: 1", "r.yaml:10: not YAML: a tab; YAML is indented with spaces"),
        ("seed: a: b", "r.yaml:9: not YAML: a ':' that cannot stand here; check the indentation, or quote the value"),
        ("seed: 'a", "r.yaml:9: not YAML: a quote that is never closed"),
        ("---\nseed: 1", "r.yaml:9: not YAML: a second document; a recipe is one document"),
        ("seed: \x00", "r.yaml:9: not YAML: the character '\\x00' cannot stand in YAML"),
        ("seed: *nobody", "r.yaml:9: not YAML: found undefined alias 'nobody'"),
        ('lock: {a: "\\ud800"}', "r.yaml:9: lock.a: '\\ud800' is not valid Unicode"),
        ("lock: &a {b: *a}", "r.yaml:1: nested too deeply or too large; does an anchor contain itself?"),
        ("lock: " + "[" * 3000, "r.yaml:1: nested too deeply or too large"),
        ("lock: " + "x" * 20_000, "r.yaml:1: too long: more than 20,000 characters"),
        ("seed: 0x" + "f" * 300, "r.yaml:9: seed: cannot read '0xfff"),
        ("seed: " + "9" * 5000, "r.yaml:9: seed: cannot read '999"),
        ('"\\ud800": 1', r"r.yaml:9: the key '\ud800' is not valid Unicode"),
    ],
)
def test_one_mistake_gives_one_line(line, message):
    assert problem(GOOD + line + "\n").startswith(message)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{}", "give exactly one of zoo, torchvision, python; found none"),
        ("{zoo: lenet5_digits, python: 'a:b'}", "give exactly one of zoo, torchvision, python; found zoo and python"),
        ("{zoo: lenet6_digits}", "model.zoo: no model 'lenet6_digits' in the zoo; did you mean 'lenet5_digits'?"),
        ("{zoo: 3}", "model.zoo: expected text, got 3; put it in quotes"),
        ("{zooo: lenet5_digits}", "model.zooo: unknown key 'zooo'; did you mean 'zoo'?"),
        ("{zoo: lenet5_digits, weights: w.pt}", "model.weights: no such file: /"),
        ("{zoo: lenet5_digits, weights: /}", "model.weights: is a folder, not a file: /"),
        ("{zoo: ${NAME}}", "model.zoo: variable NAME is not set"),
        ("null", "model: expected a mapping with zoo, torchvision, python, weights, args, got null"),
    ],
)
def test_the_model_section(section, message):
    assert message in problem(GOOD.replace("{zoo: lenet5_digits}", section))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{imagefolder: nowhere}", "data.imagefolder: no such file or folder: /"),
        ("{digits: true, npz: 3}", "data.npz: expected text, got 3; put it in quotes"),
        ("{digits: true, augment: flip}", "data.augment: expected a list, got 'flip'; write ['flip']"),
        (
            "{digits: true, augment: [flop]}",
            "data.augment.0: expected 'pad_crop', 'flip' or 'resized_crop', got 'flop'",
        ),
        ("{digits: true, normalize: {mean: [0.5], std: [0.1, 0.1]}}", "data.normalize: mean has 1 channels, std has 2"),
        (
            "{digits: true, normalize: {mean: [0.5], stdd: [0.1]}}",
            "data.normalize.stdd: unknown key 'stdd'; did you mean",
        ),
        ("{digits: true, normalize: {mean: [0.5]}}", "data.normalize.std: is required, but missing"),
        ("{digits: true, normalize: {mean: [0.5], std: [0]}}", "data.normalize.std.0: expected more than 0, got 0"),
        ("{digits: true, validation: 0}", "data.validation: expected more than 0, got 0"),
        ("{digits: false}", "give exactly one of digits, npz, imagefolder, torchvision, python; found none"),
        ("{python: 'a:b', size: 4}", "size is for images; arrays of npz and python are taken as they are"),
    ],
)
def test_the_data_section(section, message):
    assert message in problem(GOOD.replace("{digits: true}", section))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "prune.fake:\n    macs: 0.5",
            "r.yaml:6: steps.0: indent macs below prune.fake: settings stand two spaces deeper",
        ),
        (
            "prune.fake:\n    distill.fake:",
            "steps.0: a step is one technique, found prune.fake, distill.fake: begin each",
        ),
        ("3", "steps.0: expected a technique and its settings, such as prune.structured: {}; got 3"),
        ("{}", "steps.0: expected a technique and its settings, such as prune.structured: {}; got {}"),
        ("prune.fake: 0.5", "steps.0.prune.fake: expected a mapping of settings, got 0.5"),
        ("prun", "steps.0.prun: unknown technique 'prun'; allowed: prune.fake, distill.fake"),
        ("distill.fake", "steps.0.distill.fake.epochs: is required, but missing"),
        ("distill.fake: {epochs: 1, width: -3}", "steps.0.distill.fake.width: expected more than 0, got -3"),
        (
            "distill.fake: {epochs: 1, width: autoo}",
            "expected a whole number or 'auto', got 'autoo'; did you mean 'auto'?",
        ),
        (
            "distill.fake: {epochs: 1, teacher: {zoo: nobody}}",
            "steps.0.distill.fake.teacher.zoo: no model 'nobody' in the",
        ),
        ("prune.fake: {macs: 0.5, latency: 0.5}", "steps.0.prune.fake: give one of macs and latency, not both"),
        ("prune.fake: {fit: {momentun: 0}}", "steps.0.prune.fake.fit.momentun: unknown key 'momentun'; did you mean"),
        ("prune.fake: {table: t.json}", "steps.0.prune.fake.table: no such file: /"),
    ],
)
def test_a_wrong_step(step, message):
    head = GOOD[: GOOD.index("  - ")]
    assert message in problem(f"{head}  - {step}\n")


def test_a_rule_about_several_keys_is_told_beside_a_wrong_key():
    step = "prune.fake: {macs: 0.5, latency: 0.5, importance: 4}"
    assert [line.partition(": ")[2] for line in problems(GOOD[: GOOD.index("  - ")] + f"  - {step}\n")] == [
        "steps.0.prune.fake.importance: expected 'l1' or 'taylor', got 4",
        "steps.0.prune.fake: give one of macs and latency, not both",
    ]


@pytest.mark.parametrize(
    ("text", "found"), [("", "an empty text"), ("# nothing", "an empty text"), ("- a", '["a"]'), ("hello", "'hello'")]
)
def test_what_is_no_mapping(text, found):
    assert problem(text) == f"r.yaml:1: a recipe is a mapping with version, name, model, data, steps; got {found}"


def test_missing_sections():
    assert problems("{version: 1, name: a}") == [
        "r.yaml:1: model: is required, but missing: The trained model to start from.",
        "r.yaml:1: data: is required, but missing: The data to train, calibrate and test with.",
        "r.yaml:1: steps: is required, but missing: The techniques, in the order they are applied.",
    ]


def test_steps_must_be_a_list():
    assert problem(GOOD[: GOOD.index("steps")] + "steps: {prune.fake: {}}") == (
        'r.yaml:5: steps: expected a list, each entry starting with a dash; got {"prune.fake": {}}'
    )


def test_numbers_are_read_as_people_write_them():
    recipe = parse_recipe(GOOD + "export: {tolerance: 1e-3}\nseed: 0x10\n")
    assert (recipe.export.tolerance, recipe.seed) == (1e-3, 16)


def test_variables_work_unquoted_inside_braces(tmp_path):
    (tmp_path / "d.npz").touch()
    text = GOOD.replace(
        "{digits: true}", "{npz: ${DATA}/d.npz, batch_size: ${BATCH:-64}, args: {a: '${BATCH:-64}', b: $${x}}}"
    )
    data = parse_recipe(text, env={"DATA": str(tmp_path)}).data
    assert (data.npz, data.batch_size, data.args) == (f"{tmp_path}/d.npz", 64, {"a": "64", "b": "${x}"})


def test_a_variable_cannot_change_the_structure():
    text = GOOD.replace("lenet5_digits", "${ZOO}")
    assert "no model 'lenet5_digits, args: {a: 1}' in the zoo" in problem(
        text, env={"ZOO": "lenet5_digits, args: {a: 1}"}
    )


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.npz").touch()
    (tmp_path / "here.npz").touch()
    recipe = tmp_path / "sub" / "r.yaml"
    recipe.write_text(GOOD.replace("{digits: true}", "{npz: d.npz}"))
    monkeypatch.chdir(tmp_path)
    assert read_recipe("sub/r.yaml").data.npz == str(tmp_path / "sub" / "d.npz")
    assert read_recipe("sub/r.yaml", ["data.npz=here.npz"]).data.npz == str(tmp_path / "here.npz")


def test_the_folder_is_kept_where_python_modules_are_named(tmp_path):
    (tmp_path / "r.yaml").write_text(GOOD.replace("{zoo: lenet5_digits}", "{python: 'models:build'}"))
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.folder == str(tmp_path)
    assert parse_recipe(dump_recipe(recipe), folder="elsewhere").folder == str(tmp_path)
    assert parse_recipe(GOOD).folder is None


def test_torchvision_weights_by_name_are_no_file():
    model = parse_recipe(GOOD.replace("{zoo: lenet5_digits}", "{torchvision: resnet18, weights: IMAGENET1K_V1}")).model
    assert model.weights == "IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"name: \xff"), "not a recipe: byte 6 is not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, make, message):
    path = tmp_path / "r.yaml"
    make(path)
    with pytest.raises(RecipeError) as raised:
        read_recipe(path)
    assert str(raised.value) == f"{path}: {message}"


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert read_recipe(path) == parse_recipe(GOOD)


def test_overrides():
    recipe = parse_recipe(
        GOOD,
        overrides=[
            "steps.0.macs=0.4",
            "steps.1.distill.fake.epochs=3",
            "gates.min_speedup=2",
            "seed=1",
            "steps.0.fit.ema=0.9",
        ],
    )
    assert recipe.steps == (
        Prune(macs=0.4, importance="taylor", fit=FitSettings(ema=0.9)),
        Distill(epochs=3),
    )
    assert (recipe.gates.min_speedup, recipe.seed) == (2, 1)


def test_an_override_of_steps_that_are_no_list():
    found = problems("version: 1\nsteps: {}", "steps..x=1")
    assert any("steps: expected a list, each entry starting with a dash" in line for line in found)


def test_openings_of_variables_are_gone_through_once():
    """Each was tried to the end of the text, which took minutes."""
    started = time.process_time()
    assert any("cannot read '${'" in line for line in problems("x: '" + "${" * 9000 + "'"))
    assert time.process_time() - started < 5


def test_braces_are_not_read_deeper_than_a_recipe_goes():
    started = time.process_time()
    assert any("nested too deeply" in line for line in problems("[" * 19_000))
    assert time.process_time() - started < 5


def test_a_file_of_any_size_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"#" * 80_001)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(RecipeError, match="not a recipe: it has over 80,000 bytes"):
            read_recipe(endless)


def test_an_override_may_replace_a_step_a_section_or_a_list_entry():
    overrides = ["steps.0=prune.fake", "steps.0.macs=0.3", "profile={threads: [1, 2]}", "profile.threads.1=4"]
    recipe = parse_recipe(GOOD, overrides=[*overrides, "steps.1.distill.fake={epochs: 7}"])
    assert recipe.steps == (Prune(macs=0.3), Distill(epochs=7))
    assert recipe.profile.threads == (1, 4)


def test_overrides_reach_into_conditional_entries():
    overrides = ["conditional=[early_exit]", "conditional.0.exits=1", "conditional.0.early_exit.epochs=2"]
    assert parse_recipe(GOOD, overrides=overrides).conditional == (EarlyExit(exits=1, epochs=2),)
    message = "--set conditional.0.exit=1: conditional.0.early_exit.exit: unknown key 'exit'; did you mean 'exits'?"
    assert problems(GOOD, "conditional=[early_exit]", "conditional.0.exit=1") == [message]
    message = "--set conditional.0.x=1: conditional.0 is 7, not one kind of conditional computation with its settings"
    assert message in problems(GOOD, "conditional=[7]", "conditional.0.x=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps.0.mac=0.4", "steps.0.prune.fake.mac: unknown key 'mac'; did you mean 'macs'?"),
        ("steps.0.macs=2", "steps.0.prune.fake.macs: expected less than 1, got 2"),
        ("gate.min_speedup=2", "gate: unknown key 'gate'; did you mean 'gates'?"),
        ("data.batch_size={", "data.batch_size: not YAML: expected the node content, but found '<stream end>'"),
        ("data.batch_size=${NO}", "data.batch_size: variable NO is not set"),
        ("steps.2.macs=1", "steps has 2 entries, counted from 0; got '2'"),
        ("steps.x.macs=1", "steps has 2 entries, counted from 0; got 'x'"),
        ("seed", "expected PATH=VALUE, such as steps.0.macs=0.4"),
        ("=3", "expected PATH=VALUE, such as steps.0.macs=0.4"),
        ("name.a=1", "name is 'tiny', which has no 'a' in it"),
    ],
)
def test_a_wrong_override(override, message):
    assert problem(GOOD, override).startswith(f"--set {override}: {message}")


def test_overriding_a_step_that_is_no_technique():
    assert problems(GOOD.replace("prune.fake: {macs: 0.5, importance: taylor}", "7"), "steps.0.macs=1") == [
        "r.yaml:6: steps.0: expected a technique and its settings, such as prune.structured: {}; got 7",
        "--set steps.0.macs=1: steps.0 is 7, not one technique with its settings",
    ]


def test_a_lock_file_is_a_recipe():
    recipe = parse_recipe(GOOD + "lock: {torch: '2.14', cpu: {cores: 2}}\n")
    assert recipe.lock == {"torch": "2.14", "cpu": {"cores": 2}}
    assert parse_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(
    "text",
    [
        "${HOME}",
        "$${HOME}",
        "a\x85b",
        "a\u2028b",
        "a\nb\n",
        "yes",
        "1e-3",
        "null",
        " x ",
        "'\"",
        "# a",
        "\ue0000\ue001",
    ],
)
def test_awkward_text_comes_back(text):
    recipe = parse_recipe(GOOD).model_copy(update={"lock": {text: [text]}})
    assert parse_recipe(dump_recipe(recipe), env={}).lock == {text: [text]}


def test_anchors_may_be_used_and_used_again():
    text = "lock: {a: &x 1, b: *x, c: &x 2, d: *x}\n"
    assert parse_recipe(GOOD + text).lock == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    (tmp_path / "d.npz").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_recipe(GOOD.replace("{digits: true}", "{npz: ~/d.npz}")).data.npz == str(tmp_path / "d.npz")


def test_the_dump_names_every_default():
    text = dump_recipe(parse_recipe(GOOD))
    for line in ("seed: 0", "  batch_size: 128", "    momentum: 0.9", "  opset: 20", "  max_bytes: null"):
        assert f"{line}\n" in text


shares = st.floats(1e-6, 0.999)
positive = st.floats(1e-12, 1e12)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(codec="utf-8"))
)
arguments = st.dictionaries(st.text(st.characters(codec="utf-8")), st.one_of(plain, st.lists(plain)), max_size=4)
prunings = st.builds(
    Prune,
    macs=st.none() | shares,
    importance=st.sampled_from(["l1", "taylor"]),
    fit=st.builds(
        FitSettings, learning_rate=positive, momentum=shares, ema=st.none() | shares, channels_last=st.booleans()
    ),
)
distillations = st.builds(Distill, epochs=positive, width=st.just("auto") | st.integers(1, 10**9))
channels = st.lists(positive, min_size=1, max_size=3).map(tuple)
normalizations = channels.map(lambda values: Normalization(mean=values, std=values))
recipes = st.builds(
    Recipe,
    version=st.just(1),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    seed=st.integers(0, 2**32 - 1),
    model=st.builds(
        ModelSpec,
        zoo=st.just("lenet5_digits"),
        python=st.none(),
        torchvision=st.none(),
        weights=st.none(),
        args=arguments,
    ),
    data=st.builds(
        DataSpec,
        digits=st.just(True),
        npz=st.none(),
        imagefolder=st.none(),
        torchvision=st.none(),
        python=st.none(),
        root=st.none(),
        args=arguments,
        normalize=st.sampled_from(["imagenet", "none"]) | normalizations,
        validation=positive,
        augment=st.lists(st.sampled_from(["flip", "pad_crop"])).map(tuple),
    ),
    steps=st.lists(prunings | distillations, max_size=3).map(tuple),
    conditional=st.lists(st.builds(EarlyExit, exits=st.integers(1, 4)), max_size=1).map(tuple),
    export=st.builds(ExportSpec, tolerance=positive),
    profile=st.builds(ProfileSpec, threads=st.lists(st.integers(1, 64), min_size=1, max_size=3).map(tuple)),
    gates=st.builds(GateSpec, min_speedup=st.none() | positive),
    lock=arguments,
)


@settings(deadline=None)
@given(recipes)
def test_reading_what_was_written_gives_the_same_recipe(recipe):
    text = dump_recipe(recipe)
    assert parse_recipe(text, env={}) == recipe
    assert dump_recipe(parse_recipe(text, env={})) == text


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_a_recipe_or_a_list_of_problems(text):
    with pytest.raises(RecipeError) as raised:
        parse_recipe(text, "r.yaml", env={})
    assert all(line.startswith("r.yaml:") for line in raised.value.problems)


@settings(deadline=None, max_examples=25)
@given(
    st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "name", "model", "data", "steps", "zoo", "digits", "prune.fake", "macs", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_value_in_any_section_ends_in_problems_not_in_a_crash(value):
    for section in ("version", "seed", "model", "data", "steps", "export", "profile", "gates", "lock", "conditional"):
        with contextlib.suppress(RecipeError):
            recipe = parse_recipe(GOOD, overrides=[f"{section}={_yaml(value)}"], env={})
            assert parse_recipe(dump_recipe(recipe), env={}) == recipe


def _yaml(value: object) -> str:
    """Write a value as flow YAML in which every text is quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        return "'" + "".join(c for c in value if c.isprintable()).replace("'", "''").replace("${", "$${") + "'"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ".inf"
    if value is None:
        return "null"
    return str(value).lower()
