"""Cascades on ONNX Runtime: who answers what, and what is refused."""

import json
import shutil
import threading

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import nn

from adaptkit.conditional.cascade import Cascaded
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.thresholds import Outcome
from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import final_onnx
from adaptkit.export.packaging import Packaging
from adaptkit.export.score import add_score
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.folder import open_runner
from adaptkit.runtime.members import Members
from adaptkit.runtime.score import score
from adaptkit.specs import ExportSpec

LIMITS = {"margin": (0.5, 0.3), "confidence": (0.7, 0.6), "entropy": (0.6, 0.8)}
TEMPERATURES = (1.0, 2.0)


def classifier(seed, inputs=6, classes=3):
    torch.manual_seed(seed)
    model = nn.Linear(inputs, classes)
    with torch.no_grad():
        model.weight *= 4
    return model


@pytest.fixture(scope="module")
def members():
    return tuple(PlainArtifact(classifier(seed), (torch.zeros(2, 6),)) for seed in range(3))


def cascade(members, rule="margin", limits=None):
    outcome = Outcome((), (0.5, 0.3, 0.2), 1.0, 0, 0, 1, 1.0)
    return Cascaded(members, rule, TEMPERATURES, limits or LIMITS[rule], 3, outcome)


@pytest.fixture
def folder(members, tmp_path):
    cascade(members).write(tmp_path, Packaging(labels=("a", "b", "c")))
    return tmp_path


def samples(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)


def one_by_one(members, rule, x):
    """Ask the models about each sample, one after the other, in PyTorch."""
    places, answers = [], []
    for row in x:
        for number, member in enumerate(members):
            logits = member.network(torch.from_numpy(row)).detach().numpy()
            if number == 2:
                break
            p = np.sort(softmax(logits / TEMPERATURES[number]))
            found = {"margin": p[-1] - p[-2], "confidence": p[-1], "entropy": -(p * np.log(p)).sum()}[rule]
            limit = LIMITS[rule][number]
            if (found <= limit) if rule == "entropy" else (found >= limit):
                break
        places.append(number)
        answers.append(logits)
    return places, np.array(answers)


@pytest.mark.parametrize("rule", ["margin", "confidence", "entropy"])
@pytest.mark.parametrize("batch", [1, 3, 60])
def test_every_sample_is_answered_by_the_first_that_is_sure(members, rule, batch, tmp_path):
    cascade(members, rule).write(tmp_path, Packaging())
    model, x = AdaptedModel.load(tmp_path, threads=1), samples(60)
    places, answers = one_by_one(members, rule, x)
    results = [model(x[i : i + batch]) for i in range(0, 60, batch)]
    assert np.concatenate([result.path for result in results]).tolist() == places
    np.testing.assert_allclose(np.concatenate([result.logits for result in results]), answers, atol=1e-5)
    assert set(places) == {0, 1, 2}
    assert {each.name: each.samples for each in model.statistics} == {f"model {k}": places.count(k) for k in range(3)}


def test_later_models_see_only_what_was_left(folder):
    model, x = AdaptedModel.load(folder, threads=1), samples(60)
    seen = []
    inner = model.runner._members.runners[1].first.run

    class Counting:
        def run(self, names, feeds):
            seen.append(len(next(iter(feeds.values()))))
            return inner(names, feeds)

    model.runner._members.runners[1].first = Counting()
    result = model(x)
    assert seen == [int((result.path > 0).sum())]
    assert list(result.seconds) == ["model 0", "decisions", "model 1", "model 2"]
    assert (np.diff([result.waited[result.path == k].max() for k in range(3)]) > 0).all()
    assert sum(result.seconds.values()) == pytest.approx(result.waited.max(), rel=0.5)


def test_the_notes_are_those_of_the_recipe(folder, members):
    assert AdaptedModel.load(folder).labels == ("a", "b", "c")
    assert [share for _, share in cascade(members).parts] == pytest.approx([1.0, 0.5, 0.2])


def test_a_cascade_inside_of_a_cascade(members, tmp_path):
    inner = cascade(members)
    outer = Cascaded((inner, members[2]), "margin", (1.0,), (0.2,), 3, Outcome((), (0.9, 0.1), 1.0, 0, 0, 1, 1.0))
    outer.write(tmp_path, Packaging())
    model, x = AdaptedModel.load(tmp_path, threads=1), samples(60)
    assert model.paths == outer.paths
    assert model.paths == ("model 0: model 0", "model 0: model 1", "model 0: model 2", "model 1")
    places, answers = one_by_one(members, "margin", x)
    stays = score(answers, "margin") >= 0.2
    last = members[2].network(torch.from_numpy(x)).detach().numpy()
    result = model(x)
    assert result.path.tolist() == np.where(stays, places, 3).tolist()
    np.testing.assert_allclose(result.logits, np.where(stays[:, None], answers, last), atol=1e-5)
    assert {"model 0: model 0", "model 0: decisions", "model 1"} <= set(result.seconds)


def test_from_many_threads(folder):
    model, x = AdaptedModel.load(folder, threads=1), samples(30)
    alone = [model(row[None]).logits for row in x]
    wrong = []

    def work():
        wrong.extend(
            row for row, answer in zip(x, alone, strict=True) if not np.array_equal(model(row[None]).logits, answer)
        )

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(each.samples for each in model.statistics) == 17 * 30


def test_a_stream_of_one_sample_only(folder):
    model, x = AdaptedModel.load(folder, threads=1), np.repeat(samples(1), 40, axis=0)
    result = model(x)
    assert len(set(result.path)) == 1
    np.testing.assert_allclose(result.logits, np.repeat(result.logits[:1], 40, axis=0), atol=1e-6)


def test_bad_batches(folder):
    model = AdaptedModel.load(folder)
    with pytest.raises(DataError, match="the batch is empty"):
        model(samples(0))
    with pytest.raises(DataError, match="holds NaN"):
        model(np.full((2, 6), np.nan, np.float32))


def test_nan_in_a_model_is_no_answer(members, tmp_path):
    broken = classifier(5)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    damaged = (PlainArtifact(broken, (torch.zeros(2, 6),)), *members[1:])
    cascade(damaged).write(tmp_path, Packaging())
    with pytest.raises(DataError, match="answers with NaN or infinity"):
        AdaptedModel.load(tmp_path)(samples(4))


def _edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=2), "is of version 2, this adaptkit reads version 1"),
        (lambda m: m.update(rule="mood"), "is wrong at rule"),
        (lambda m: m["models"][0].update(threshold=1.5), r"the threshold of models/0 is not from 0 to 1"),
        (lambda m: m["models"][0].update(threshold=None), r"the threshold of models/0 is not from 0 to 1"),
        (lambda m: m["models"][2].update(threshold=0.5), r"models/2 is the last and answers whatever is left"),
        (lambda m: m["models"][1].update(temperature=0), r"is wrong at models\.1\.temperature"),
        (lambda m: m["models"][1].update(folder="models/9"), "no file of models/9 is among the files"),
        (lambda m: m["models"][1].update(folder="../x"), r"is wrong at models\.1\.folder"),
        (lambda m: m["models"].__delitem__(slice(1, 3)), "is wrong at models"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "is not the file that manifest.json names"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    _edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_a_missing_model(folder):
    shutil.rmtree(folder / "models" / "1")
    with pytest.raises(ModelError, match=r"models/1/model\.onnx is missing"):
        AdaptedModel.load(folder)


def test_more_classes_than_the_manifest_says(folder):
    _edit(folder, lambda m: m.update(classes=4))
    with pytest.raises(ModelError, match=r"answers with shape \[2, 3\], not 2 × 4 classes"):
        AdaptedModel.load(folder)(samples(2))


def test_models_that_do_not_fit_together(members, tmp_path):
    other = PlainArtifact(classifier(7, inputs=5), (torch.zeros(2, 5),))
    cascade((other, *members[1:])).write(tmp_path, Packaging())
    with pytest.raises(ModelError, match=r"models/0 takes 5 and .*models/2 6: name models of the same input"):
        AdaptedModel.load(tmp_path)


@pytest.mark.parametrize(
    ("packaging", "message"),
    [
        (
            Packaging(ExportSpec(normalize_in_graph=True), mean=(0.5,), std=(2.0,)),
            "normalizes its input and .* does not",
        ),
        (Packaging(mean=(0.25,), std=(2.0,)), "normalizes otherwise than"),
        (Packaging(labels=("c", "b", "a")), "has other labels than"),
    ],
)
def test_models_of_other_data(tmp_path, packaging, message):
    network = nn.Sequential(nn.Flatten(), classifier(0))
    parts = [PlainArtifact(network, (torch.zeros(2, 1, 6),)) for _ in range(3)]
    wanted = Packaging(mean=(0.5,), std=(2.0,), labels=("a", "b", "c"))
    cascade(tuple(parts)).write(tmp_path, wanted)
    parts[0].write(tmp_path / "models/0", packaging)
    with pytest.raises(ModelError, match=message):
        Members([open_runner(tmp_path / f"models/{k}") for k in range(3)], 3, ["one", "two", "three"])


def test_a_model_of_one_batch_size(tmp_path):
    proto = final_onnx(classifier(0), (torch.zeros(2, 6),))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    runner = open_runner(tmp_path)
    with pytest.raises(ModelError, match="one takes batches of 1 only: export it with a free batch dimension"):
        Members([runner, runner], 3, ["one", "two"])


@pytest.fixture(scope="module")
def scored():
    sessions = {}
    for rule in LIMITS:
        for temperature in (1.0, 2.5):
            proto = final_onnx(nn.Hardtanh(-99, 99), (torch.zeros(2, 5),))
            add_score(proto, "logits", "score", rule, temperature)
            sessions[rule, temperature] = ort.InferenceSession(
                proto.SerializeToString(), providers=["CPUExecutionProvider"]
            )
    return sessions


@settings(max_examples=40)
@given(
    logits=st.lists(st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5), min_size=1, max_size=4),
    rule=st.sampled_from(list(LIMITS)),
    temperature=st.sampled_from([1.0, 2.5]),
)
def test_scores_are_those_of_a_file(scored, logits, rule, temperature):
    array = np.array(logits, np.float32)
    wanted = scored[rule, temperature].run(["score"], {"input": array})[0]
    np.testing.assert_allclose(score(array, rule, temperature), wanted, atol=2e-5)
