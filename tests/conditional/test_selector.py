"""Selectors of digit models, from settings to files."""

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import nn

from adaptkit.conditional import selector_calibration
from adaptkit.conditional.members import NEW_TO_ALL, Said
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.selector import ModelSelection
from adaptkit.conditional.selector_calibration import learn, worth_having
from adaptkit.errors import DataError, TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.selector import preferred
from adaptkit.technique import Context


class Dim(nn.Module):
    """A linear classifier of digits that is lost where the image is dark."""

    def __init__(self, least):
        super().__init__()
        self.classify, self.least = nn.Linear(64, 10), least

    def forward(self, x):
        bright = (x.mean((1, 2, 3), keepdim=True) > self.least).flatten(1)
        return self.classify(x.flatten(1)) * bright + 0.01 * x.flatten(1)[:, :10]


def dim(least=0.25):
    """A small model: right on bright digits only."""
    torch.manual_seed(0)
    model = Dim(least)
    x, y = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(x / 16).float(), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.classify.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.classify(images), labels).backward()
        optimizer.step()
    return model.eval()


DIM = {"python": "tests.conditional.test_selector:dim"}


@pytest.fixture(scope="module")
def digits():
    """Digits, half of them darkened."""
    x, y = load_digits(return_X_y=True)
    images = torch.from_numpy(x.reshape(-1, 1, 8, 8) / 16).float()
    order = np.random.default_rng(0).permutation(len(y))
    images[order[::2]] *= 0.4
    keep = torch.from_numpy(order)
    return [(images[keep[a:b]], torch.from_numpy(y)[keep[a:b]]) for a, b in ((0, 1200), (1200, 1797))]


@pytest.fixture(scope="module")
def original():
    return dim(0.0)


@pytest.fixture(scope="module")
def inner(original):
    return PlainArtifact(copy.deepcopy(original), (torch.zeros(2, 1, 8, 8),))


@pytest.fixture
def context(digits):
    return Context(example_inputs=(torch.zeros(2, 1, 8, 8),), validation=digits[0])


@pytest.fixture
def steady(monkeypatch):
    """Times that no busy machine changes: the small models take 2, 3, …, the large one 10 µs, a look at the image 1."""

    def seconds(runs, x):
        looks = not hasattr(runs[0], "_runner")
        return 1e-6 * np.array([1.0 if looks else 2.0, *range(3, len(runs) + 1), 10.0])

    monkeypatch.setattr(selector_calibration, "sample_seconds", seconds)


@pytest.mark.parametrize("settings", [{}, {"label": "best_metric"}, {"classifier": "single"}])
def test_bright_digits_go_to_the_small_model(settings, inner, original, context, digits, steady, tmp_path):
    notes: list[str] = []
    technique = ModelSelection(models=[DIM], max_accuracy_drop=0.03, min_gain=0.01, **settings)
    made = technique.wrap(inner, original, context.replace(notes=notes))
    assert made.outcome.bound <= 0.03
    made.write(tmp_path, Packaging(labels=tuple("0123456789")))
    model = AdaptedModel.load(tmp_path, threads=1)
    assert model.paths == made.paths == ("model 0", "model 1")
    x, y = digits[1]
    result = model(x.numpy())
    answers = np.stack([answer.detach().numpy() for answer in made.answers(x)])
    np.testing.assert_allclose(result.logits, answers[result.path, np.arange(len(x))], atol=1e-3)
    bright = x.mean((1, 2, 3)).numpy() > 0.25
    if not settings.get("label"):
        assert (result.path == 0)[bright].mean() > 0.6
        assert (result.path == 0)[~bright].mean() < 0.2
    drop = (answers[1].argmax(1) == y.numpy()).mean() - (result.logits.argmax(1) == y.numpy()).mean()
    assert drop <= 0.03
    assert "1 µs of it to look at the image, and 11 µs at worst, 10 µs with the large model alone" in notes[0]
    assert "features tell rightly whether a model is the one to use for" in notes[1]
    assert notes[2] == NEW_TO_ALL


def test_what_is_not_used_is_left_out(inner, original, context, steady):
    notes: list[str] = []
    models = [DIM, {**DIM, "args": {"least": 0.9}}]
    made = ModelSelection(models=models, max_accuracy_drop=0.03).wrap(inner, original, context.replace(notes=notes))
    assert len(made.members) == 2
    assert notes[0].startswith("left out, since they are not used or not worth having: tests.conditional")


def said(samples=600, classes=3, seed=0):
    """Three models; the first is right on bright images, the second on images with edges, the last on all."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, 1, 6, 6)).astype(np.float32) * 0.2
    bright, rough = random.random(samples) < 0.4, random.random(samples) < 0.5
    x[bright] += 1
    x[rough, :, :, ::2] += 2
    y = random.integers(0, classes, samples)
    logits = np.zeros((3, samples, classes), np.float32)
    for number, right in enumerate((bright, rough, np.ones(samples, bool))):
        logits[number, np.arange(samples), np.where(right, y, (y + 1) % classes)] = 2
    return Said(x, logits, y, np.ones(samples, bool)), np.where(bright, 0, np.where(rough, 1, 2))


@pytest.mark.parametrize("classifier", ["cascade", "single"])
@pytest.mark.parametrize("label", ["fastest_right", "best_metric"])
def test_three_models_are_told_apart(classifier, label):
    settings = ModelSelection(models=[DIM, DIM], classifier=classifier, label=label)
    known, _ = said()
    kept = worth_having(settings, known, np.array([1.0, 2.0, 4.0]))
    assert kept == [0, 1, 2]
    premodel = learn(settings, known, kept, seed=0)
    fresh, places = said(seed=1)
    votes = premodel.votes(fresh.x)
    assert votes.shape == (600, 2)
    assert (preferred(votes, np.array([0.5, 0.5])) == places).mean() > 0.95
    assert all(judged.right > judged.blind for judged in premodel.judged)


def test_models_are_ordered_by_time_and_slow_ones_are_no_use():
    known, _ = said()
    settings = ModelSelection(models=[DIM, DIM])
    assert worth_having(settings, known, np.array([2.0, 1.0, 4.0])) == [1, 0, 2]
    assert worth_having(settings, known, np.array([5.0, 1.0, 4.0])) == [1, 2]
    with pytest.raises(TargetError, match="none of the models is faster than the large one"):
        worth_having(settings, known, np.array([5.0, 6.0, 4.0]))


def test_neighbours_are_not_those_that_test(inner, original, context, steady, monkeypatch):
    seen = {}
    honest = selector_calibration.learn

    def watched_learn(settings, stored, kept, seed):
        seen["stored"] = {image.tobytes() for image in stored.x}
        premodel = honest(settings, stored, kept, seed)
        honest_votes = premodel.votes

        def votes(x):
            seen["tested"] = [image.tobytes() for image in x]
            return honest_votes(x)

        object.__setattr__(premodel, "votes", votes)
        return premodel

    monkeypatch.setattr(selector_calibration, "learn", watched_learn)
    ModelSelection(models=[DIM], max_accuracy_drop=0.03).wrap(inner, original, context)
    assert len(seen["stored"] & set(seen["tested"])) == 0
    assert len(seen["tested"]) == 600


def test_a_look_that_costs_more_than_it_saves_is_refused(inner, original, context, monkeypatch):
    def seconds(runs, x):
        return 1e-6 * (np.array([2.0, 10.0]) if hasattr(runs[0], "_runner") else np.array([9.0, 10.0]))

    monkeypatch.setattr(selector_calibration, "sample_seconds", seconds)
    with pytest.raises(
        TargetError, match=r"9 µs of it to look at the image, the large model alone 10 µs: \d+ features"
    ):
        ModelSelection(models=[DIM], max_accuracy_drop=0.03).wrap(inner, original, context)


def test_a_limit_below_what_the_samples_can_show_is_refused(inner, original, context, steady):
    with pytest.raises(TargetError, match=r"at most 0\.01 points with 95 % confidence: on 420 validation samples"):
        ModelSelection(models=[DIM], max_accuracy_drop=0.0001).wrap(inner, original, context)


def test_too_little_data(inner, original, context):
    few = tuple(tensor[:30] for tensor in context.validation)
    with pytest.raises(DataError, match="selector needs at least 40 validation samples; got 30"):
        ModelSelection(models=[DIM]).wrap(inner, original, context.replace(validation=few))
    with pytest.raises(DataError, match="selector needs validation data"):
        ModelSelection(models=[DIM]).wrap(inner, original, context.replace(validation=None))
    known, _ = said(40)
    with pytest.raises(DataError, match=r"only \d+ validation samples are left to learn from, for 30 folds"):
        learn(ModelSelection(models=[DIM, DIM], folds=30), known, [0, 1, 2], 0)


def test_images_that_all_look_the_same():
    known, _ = said()
    grey = Said(np.zeros_like(known.x), known.logits, known.y, known.original)
    with pytest.raises(DataError, match="all look the same to the selector"):
        learn(ModelSelection(models=[DIM, DIM]), grey, [0, 1, 2], 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "at least 1 item"),
        ({"neighbours": [0]}, "greater than 0"),
        ({"neighbours": []}, "at least 1 item"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"label": "slowest"}, "Input should be"),
        ({"classifier": "tree"}, "Input should be"),
        ({"max_correlation": 0}, "greater than 0"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(ValidationError, match=message):
        ModelSelection(**{"models": [DIM], **settings})
