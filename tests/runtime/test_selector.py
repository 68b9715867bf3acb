"""Selectors on ONNX Runtime: every sample goes where the votes send it."""

import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.conditional.image_features import ImageFeatures
from adaptkit.conditional.neighbours import Neighbours
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.premodel import make_premodel
from adaptkit.conditional.selector import Selected
from adaptkit.conditional.thresholds import Outcome
from adaptkit.errors import DataError, ModelError
from adaptkit.export.packaging import Packaging
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.manifest import describe
from adaptkit.specs import ExportSpec

LIMITS = (0.8, 0.6)


def classifier(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def samples(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 1, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def parts():
    stored = samples(40, seed=9)
    features = ImageFeatures.of(stored)
    chosen = [0, 2, 5]
    points = features.compute(stored)[:, chosen]
    says = [(points[:, [column]] > np.median(points[:, column])).astype(int) for column in (0, 1)]
    asked = [Neighbours(points, each, 5) for each in says]
    premodel = make_premodel(features, chosen, np.zeros(3), np.ones(3), asked)
    members = tuple(PlainArtifact(classifier(seed), (torch.zeros(2, 1, 4, 4),)) for seed in range(3))
    return features, chosen, asked, premodel, members


@pytest.fixture
def selected(parts):
    return Selected(parts[3], parts[4], LIMITS, 3, Outcome((), (0.5, 0.3, 0.2), 1.0, 0, 0, 1, 1.0))


@pytest.fixture
def folder(selected, tmp_path):
    selected.write(tmp_path, Packaging(labels=("a", "b", "c")))
    return tmp_path


def one_by_one(parts, x):
    features, chosen, asked, _, members = parts
    places, answers = [], []
    for image in x:
        row = features.compute(image[None])[:, chosen]
        votes = [float(each.votes(row)[0, 0]) for each in asked]
        place = next((k for k in range(2) if np.float32(votes[k]) >= np.float32(LIMITS[k])), 2)
        places.append(place)
        answers.append(members[place].network(torch.from_numpy(image[None]))[0].detach().numpy())
    return places, np.array(answers)


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_every_sample_goes_where_the_votes_send_it(parts, folder, batch):
    model, x = AdaptedModel.load(folder, threads=1), samples(50)
    places, answers = one_by_one(parts, x)
    results = [model(x[i : i + batch]) for i in range(0, 50, batch)]
    assert np.concatenate([result.path for result in results]).tolist() == places
    np.testing.assert_allclose(np.concatenate([result.logits for result in results]), answers, atol=1e-5)
    assert set(places) == {0, 1, 2}
    assert model.labels == ("a", "b", "c")


def test_times_and_shares(folder, selected):
    result = AdaptedModel.load(folder, threads=1)(samples(50))
    assert list(result.seconds) == ["selection", "model 0", "model 1", "model 2"]
    assert (np.diff([result.waited[result.path == k].max() for k in range(3)]) > 0).all()
    assert [share for _, share in selected.parts] == [1.0, 0.5, 0.3, 0.2]
    assert selected.paths == ("model 0", "model 1", "model 2")
    assert [len(answer) for answer in selected.answers(torch.from_numpy(samples(4)))] == [4, 4, 4]


def test_files_that_take_pixels(folder, selected, tmp_path):
    (tmp_path / "pixels").mkdir()
    selected.write(tmp_path / "pixels", Packaging(ExportSpec(normalize_in_graph=True), mean=(0.5,), std=(0.25,)))
    x = samples(50)
    pixels, normalized = AdaptedModel.load(tmp_path / "pixels")(x * 0.25 + 0.5), AdaptedModel.load(folder)(x)
    assert (pixels.path == normalized.path).mean() > 0.9
    same = pixels.path == normalized.path
    np.testing.assert_allclose(pixels.logits[same], normalized.logits[same], atol=1e-4)


def test_from_many_threads(folder):
    model, x = AdaptedModel.load(folder, threads=1), samples(20)
    alone = [model(image[None]).logits for image in x]
    wrong = []

    def work():
        for image, answer in zip(x, alone, strict=True):
            if not np.array_equal(model(image[None]).logits, answer):
                wrong.append(image)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stream_of_one_sample_only(folder):
    result = AdaptedModel.load(folder, threads=1)(np.repeat(samples(1), 30, axis=0))
    assert len(set(result.path)) == 1
    assert len(result.seconds) == 2


def test_bad_batches(folder):
    model = AdaptedModel.load(folder)
    with pytest.raises(DataError, match="the batch is empty"):
        model(samples(0))
    with pytest.raises(DataError, match="holds NaN"):
        model(np.full((2, 1, 4, 4), np.nan, np.float32))
    with pytest.raises(DataError, match="the model takes N × 1 × 4 × 4"):
        model(np.zeros((2, 1, 5, 5), np.float32))


def _edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=0), "is of version 0, this adaptkit reads version 1"),
        (lambda m: m.update(premodel="other.onnx"), "other.onnx is not among the files"),
        (lambda m: m["models"][0].update(threshold=1.5), r"is wrong at models\.0\.threshold"),
        (lambda m: m["models"][1].update(threshold=None), "models/1 has no threshold"),
        (lambda m: m["models"][2].update(threshold=0.5), "models/2 is the last and gets the rest"),
        (lambda m: m["models"][1].update(folder="models/7"), "no file of models/7 is among the files"),
        (lambda m: m["models"].pop(0), "premodel.onnx gives no votes for 1 models"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "is not the file that manifest.json names"),
        (lambda m: m.update(extra=1), "is wrong at extra"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    _edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_a_premodel_of_other_images(folder):
    stored = np.random.default_rng(0).standard_normal((20, 1, 6, 6)).astype(np.float32)
    features = ImageFeatures.of(stored)
    asked = [Neighbours(features.compute(stored)[:, [0]], np.ones((20, 1), int), 3)] * 2
    other = make_premodel(features, [0], np.zeros(1), np.ones(1), asked)
    Packaging(labels=("a", "b", "c")).write(other, folder / "premodel.onnx")
    files = [file.model_dump() for file in describe(folder)]
    _edit(folder, lambda m: m.update(files=files))
    with pytest.raises(ModelError, match=r"premodel\.onnx takes 1 × 6 × 6 and the models 1 × 4 × 4"):
        AdaptedModel.load(folder)
