"""Cascades of digit models, from settings to files."""

import copy
import time

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import nn

from adaptkit.conditional import cascade_calibration
from adaptkit.conditional.cascade import CascadeOfModels
from adaptkit.conditional.cascade_calibration import replies, settle
from adaptkit.conditional.members import Said, sample_seconds
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.thresholds import evaluate
from adaptkit.errors import DataError, ModelError, RecipeError, TargetError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.packaging import Packaging
from adaptkit.loading.models import load_model
from adaptkit.quantization import StaticQuantization
from adaptkit.recipe import parse_recipe
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.score import score
from adaptkit.specs import ExportSpec, ModelSpec
from adaptkit.technique import Context

LITTLE = {"zoo": "lenet5_digits"}


@pytest.fixture(scope="module")
def digits():
    """Noisy digits, of which the small model misses some that the large one gets."""
    x, y = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.from_numpy(x.reshape(-1, 1, 8, 8) / 16).float()
    noisy = images + 0.25 * torch.randn(images.shape, generator=generator)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
    labels = torch.from_numpy(y)[order]
    return [(noisy[order][a:b], labels[a:b]) for a, b in ((0, 300), (300, 1300), (1300, 1797))]


@pytest.fixture(scope="module")
def original():
    return load_model(ModelSpec(zoo="resnet_digits"))


@pytest.fixture
def context(digits):
    held, validation, _ = digits
    return Context(example_inputs=(validation[0][:2],), calibration=held, validation=validation)


@pytest.fixture(scope="module")
def inner(original, digits):
    return PlainArtifact(copy.deepcopy(original), (digits[0][0][:2],))


@pytest.fixture
def steady(monkeypatch):
    """Times that no busy machine changes: the small models take 1, 2, …, the large one 10 µs."""

    def seconds(runs, x, samples=0):
        return 1e-6 * np.array([*range(1, len(runs)), 10.0])

    monkeypatch.setattr(cascade_calibration, "sample_seconds", seconds)


@pytest.mark.parametrize("rule", ["margin", "entropy"])
def test_easy_samples_stay_with_the_small_model(rule, inner, original, context, digits, steady, tmp_path):
    made = CascadeOfModels(models=[LITTLE], rule=rule, max_accuracy_drop=0.03).wrap(inner, original, context)
    made.write(tmp_path, Packaging(labels=tuple("0123456789")))
    model = AdaptedModel.load(tmp_path, threads=1)
    assert model.paths == made.paths == ("model 0", "model 1")
    x, y = digits[2]
    result = model(x.numpy())
    little, big = (answer.detach().numpy() for answer in made.answers(x))
    sure = score(little, rule) >= made.thresholds[0] if rule == "margin" else score(little, rule) <= made.thresholds[0]
    assert result.path.tolist() == (~sure).astype(int).tolist()
    np.testing.assert_allclose(result.logits, np.where(sure[:, None], little, big), atol=1e-3)
    assert sure.mean() > 0.3
    drop = (big.argmax(1) == y.numpy()).mean() - (result.logits.argmax(1) == y.numpy()).mean()
    assert drop <= 0.03
    assert made.outcome.bound <= 0.03


def test_the_notes_tell_rate_bound_and_times(inner, original, context, steady):
    notes: list[str] = []
    made = CascadeOfModels(models=[LITTLE], max_accuracy_drop=0.03).wrap(inner, original, context.replace(notes=notes))
    note, warning = notes
    assert warning.startswith("the validation samples that this was chosen on have to be new to every model in it")
    share = made.outcome.shares[0]
    assert note.startswith(
        f"lenet5_digits answers {100 * share:.1f} %; delegation rate {100 * (1 - share):.1f} %; on 700"
    )
    assert f"A sample takes {1 + 10 * (1 - share):.0f} µs on average and 11 µs at worst, 10 µs with" in note
    assert [own for _, own in made.parts] == pytest.approx([1.0, 1 - share])


def test_a_finished_run_in_integers_as_the_small_model(inner, original, context, steady, tmp_path):
    little = load_model(ModelSpec(**LITTLE))
    integers = StaticQuantization(calibration=64, rounding="nearest").apply(little, context)
    (tmp_path / "run").mkdir()
    export_onnx(integers, context.example_inputs, tmp_path / "run/model.onnx", labels=tuple("0123456789"))
    settings = CascadeOfModels(models=[{"folder": str(tmp_path / "run")}], temperature=True, max_accuracy_drop=0.03)
    made = settings.wrap(inner, original, context)
    assert made.temperatures[0] != 1
    (tmp_path / "out").mkdir()
    made.write(tmp_path / "out", Packaging(ExportSpec(normalize_in_graph=True), tuple("0123456789"), (0.5,), (2.0,)))
    x = context.validation[0][:50]
    (tmp_path / "plain").mkdir()
    made.write(tmp_path / "plain", Packaging())
    pixels, normalized = (AdaptedModel.load(tmp_path / name) for name in ("out", "plain"))
    np.testing.assert_allclose(pixels((x * 2 + 0.5).numpy()).logits, normalized(x.numpy()).logits, atol=0.05)
    assert made.answers(x)[0] is None
    assert made.parts[0][1] == 1.0
    other = Packaging(labels=tuple("abcdefghij"))
    with pytest.raises(ModelError, match="has other labels than this recipe's data"):
        made.members[0].write(tmp_path / "run", other)


def test_a_cascade_goes_around_a_cascade(inner, original, context, steady, tmp_path):
    first = CascadeOfModels(models=[LITTLE], max_accuracy_drop=0.03).wrap(inner, original, context)
    (tmp_path / "first").mkdir()
    first.write(tmp_path / "first", Packaging())
    around = CascadeOfModels(models=[LITTLE], max_accuracy_drop=0.04).wrap(first, original, context)
    assert around.paths == ("model 0", "model 1: model 0", "model 1: model 1")
    inside = CascadeOfModels(models=[{"folder": str(tmp_path / "first")}], max_accuracy_drop=0.04)
    made = inside.wrap(inner, original, context)
    (tmp_path / "out").mkdir()
    made.write(tmp_path / "out", Packaging())
    model = AdaptedModel.load(tmp_path / "out")
    assert model.paths == ("model 0: model 0", "model 0: model 1", "model 1")
    assert model(context.validation[0][:20].numpy()).logits.shape == (20, 10)


def made_up(skills, samples=4000, seed=0):
    """Models that get better, and are surer where they are right."""
    random = np.random.default_rng(seed)
    y, hard = random.integers(0, 5, samples), random.random(samples)
    logits = random.normal(0, 0.3, (len(skills), samples, 5))
    for model, skill in enumerate(skills):
        said = np.where(hard < skill, y, (y + 1) % 5)
        logits[model, np.arange(samples), said] += 6 * np.maximum(skill - hard, 0) + 0.5
    return Said(np.zeros((samples, 1)), logits.astype(np.float32), y, hard < skills[-1])


def test_answers_of_a_cascade_against_a_loop():
    said, cost = made_up((0.7, 0.8, 0.9), 200), np.array([1.0, 2.0, 4.0])
    answers = replies(said, "margin", (1.0, 2.0), cost)
    outcome = evaluate(answers, (0.9, 0.5))
    spent, right = 0.0, 0
    for i in range(200):
        for model, (limit, temperature) in enumerate(((0.9, 1.0), (0.5, 2.0), (-1, 1.0))):
            spent += cost[model]
            logits = np.exp(said.logits[model, i].astype(float) / temperature)
            p = np.sort(logits / logits.sum())
            if p[-1] - p[-2] >= limit:
                break
        right += said.logits[model, i].argmax() == said.y[i]
    assert outcome.seconds == pytest.approx(spent / 200)
    assert said.original.sum() - outcome.lost + outcome.gained == right


def test_a_model_that_does_not_pay_is_left_out():
    said = made_up((0.80, 0.81, 0.9))
    cost = np.array([1.0, 3.9, 4.0])
    kept, outcome = settle(replies(said, "margin", (1.0, 1.0), cost), cost, 0.03, 0.95, 0)
    assert kept == (0,)
    assert outcome.seconds < 4
    both = np.array([0.1, 10.0, 40.0])
    kept, _ = settle(replies(made_up((0.6, 0.85, 0.9)), "margin", (1.0, 1.0), both), both, 0.03, 0.95, 0)
    assert kept == (0, 1)


def test_what_is_left_out_is_named(inner, original, context, monkeypatch):
    monkeypatch.setattr(cascade_calibration, "sample_seconds", lambda runs, x: np.array([1e-6, 9e-6, 1e-5]))
    notes: list[str] = []
    settings = CascadeOfModels(models=[LITTLE, LITTLE], max_accuracy_drop=0.03)
    made = settings.wrap(inner, original, context.replace(notes=notes))
    assert len(made.members) == 2
    assert notes[0] == "dropped, since they cost more than they save: lenet5_digits"


def test_a_cascade_slower_than_the_large_model_is_refused(inner, original, context, monkeypatch):
    monkeypatch.setattr(cascade_calibration, "sample_seconds", lambda runs, x: np.array([9.9e-6, 1e-5]))
    with pytest.raises(TargetError, match=r"would take 1\d µs a sample on average, the large model alone 10 µs: name"):
        CascadeOfModels(models=[LITTLE], max_accuracy_drop=0.03).wrap(inner, original, context)


def test_energy_is_an_estimate_and_said_to_be(inner, original, context, steady):
    notes: list[str] = []
    settings = CascadeOfModels(models=[LITTLE], objective="energy", max_accuracy_drop=0.03)
    settings.wrap(inner, original, context.replace(notes=notes))
    assert "mJ (estimate) on average" in notes[-2]


def test_a_limit_below_what_the_samples_can_show_is_refused(inner, original, context, steady):
    settings = CascadeOfModels(models=[LITTLE], max_accuracy_drop=0.0001)
    with pytest.raises(TargetError, match=r"at most 0\.01 points with 95 % confidence: on 700 validation samples"):
        settings.wrap(inner, original, context)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"zoo": "lenet5_digit"}, "did you mean lenet5_digits"),
        ({"folder": "nowhere"}, "nowhere"),
        ({"python": "tests.conditional.test_cascade:seven"}, r"model 0 answers with shape \[128, 7\].* × 10 classes"),
        ({"zoo": "resnet20_cifar"}, "channels"),
    ],
)
def test_models_that_cannot_help(inner, original, context, spec, message):
    with pytest.raises(ModelError, match=message):
        CascadeOfModels(models=[spec]).wrap(inner, original, context)


def seven():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))


def test_a_finished_model_of_other_inputs(inner, original, context, tmp_path):
    export_onnx(nn.Linear(5, 10), (torch.zeros(2, 5),), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model 0 takes \[5\] and the samples are \[1, 8, 8\]"):
        CascadeOfModels(models=[{"folder": str(tmp_path)}]).wrap(inner, original, context)


def test_a_finished_model_that_takes_pixels(inner, original, context, tmp_path):
    pixels = ExportSpec(normalize_in_graph=True)
    export_onnx(original, context.example_inputs, tmp_path / "model.onnx", spec=pixels, mean=(0.5,), std=(0.5,))
    with pytest.raises(ModelError, match="normalizes its input by itself"):
        CascadeOfModels(models=[{"folder": str(tmp_path)}]).wrap(inner, original, context)


def test_in_a_recipe(tmp_path):
    text = "version: 1\nname: tiny\nmodel: {zoo: resnet_digits}\ndata: {digits: true}\nsteps: []\nconditional:\n"
    recipe = parse_recipe(f"{text}  - cascade: {{models: [{{zoo: lenet5_digits}}, {{folder: .}}]}}", folder=tmp_path)
    assert recipe.conditional[0].models[1].folder == str(tmp_path)
    with pytest.raises(RecipeError, match=r"no model 'lenet5' in the zoo(.|\n)*no such file or folder: .*nowhere"):
        parse_recipe(f"{text}  - cascade: {{models: [{{zoo: lenet5}}, {{folder: nowhere}}]}}", folder=tmp_path)


def test_missing_data(inner, original, context):
    with pytest.raises(DataError, match="cascade needs validation data"):
        CascadeOfModels(models=[LITTLE]).wrap(inner, original, context.replace(validation=None))
    with pytest.raises(DataError, match="temperatures on calibration data"):
        CascadeOfModels(models=[LITTLE], temperature=True).wrap(inner, original, context.replace(calibration=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "at least 1 item"),
        ({"models": [{}]}, "exactly one of zoo, torchvision, python, folder; found none"),
        ({"models": [{"zoo": "a", "folder": "b"}]}, "found zoo and folder"),
        ({"models": [{"folder": "b", "weights": "w"}]}, "leave out weights and args beside folder"),
        ({"models": [LITTLE], "rule": "mood"}, "Input should be"),
        ({"models": [LITTLE], "objective": "money"}, "Input should be"),
        ({"models": [LITTLE], "confidence": 0.4}, "greater than 0.5"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(ValidationError, match=message):
        CascadeOfModels(**settings)


def test_times_of_ways_count_by_their_shares():
    def run(x):
        end = time.thread_time() + 0.004 * int(x[0, 0])
        while time.thread_time() < end:
            pass
        return int(x[0, 0])

    x = np.array([[0], [0], [0], [1]])
    (seconds,) = sample_seconds([run], x, samples=8)
    assert seconds >= 0.001
