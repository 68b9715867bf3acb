"""An activation cache in a network of the zoo, on real digits."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adaptkit.conditional import activation_fit
from adaptkit.conditional.activation_cache import ActivationCache
from adaptkit.conditional.activation_risk import RiskTable
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import DataError, ModelError, TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.loading.data import load_data
from adaptkit.loading.models import load_model
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.activation_cache import Neighbours
from adaptkit.specs import DataSpec, ModelSpec
from adaptkit.technique import Context

SETTINGS = {
    "points": 2,
    "entries": 600,
    "neighbours": 4,
    "target_precision": 0.9,
    "max_accuracy_drop": 0.05,
    "capacity": 0,
}


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(digits=True, validation=500, calibration=50), seed=0)


@pytest.fixture(scope="module")
def network():
    return load_model(ModelSpec(zoo="resnet_digits")).eval()


@pytest.fixture(scope="module")
def context(data):
    return Context(example_inputs=(torch.zeros(1, 1, 8, 8),), train=data.train, validation=data.validation, notes=[])


@pytest.fixture(scope="module")
def steady():
    """Times that no busy machine changes: a key costs a hundredth of a stage, a look-up as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            activation_fit,
            "stage_seconds",
            lambda stages, x, threads=1: np.array([1.01 if "logits_" in str(s.graph.output) else 1.0 for s in stages]),
        )
        patch.setattr(activation_fit, "_lookup_seconds", lambda finder, key: 0.01)
        yield


@pytest.fixture(scope="module")
def artifact(network, context, steady):
    plain = PlainArtifact(network, context.example_inputs)
    return ActivationCache(**SETTINGS).wrap(plain, network, context)


@pytest.fixture
def folder(artifact, tmp_path):
    artifact.write(tmp_path, Packaging(labels=tuple("0123456789")))
    return tmp_path


@pytest.fixture(scope="module")
def unseen(data):
    x, y = (torch.cat(each) for each in zip(*data.test, strict=True))
    return x.numpy(), y.numpy()


def by_loop(folder, network, image):
    """Run one image stage by stage, with a search in plain Python; gives the path and the answer."""
    manifest = json.loads((folder / "manifest.json").read_text())
    crossing = image[None]
    for number, stage in enumerate(manifest["stages"]):
        session = ort.InferenceSession(folder / stage["file"], providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        out = dict(zip(names, session.run(None, {stage["takes"]["name"]: crossing}), strict=True))
        if stage["memory"] is None:
            return number, out[stage["logits"]][0]
        key, known = out[stage["memory"]["key"]][0], load_file(folder / stage["memory"]["file"])
        distances = [1 - sum(float(a) * float(b) for a, b in zip(key, other, strict=True)) for other in known["keys"]]
        near = sorted(range(len(distances)), key=distances.__getitem__)[: manifest["neighbours"]]
        labels = {int(known["answers"][i].argmax()) for i in near}
        if len(labels) == 1 and distances[near[-1]] <= stage["memory"]["limits"][labels.pop()]:
            return number, known["answers"][near].mean(0)
        crossing = out[stage["gives"]["name"]]
    raise AssertionError


def test_samples_stop_where_a_loop_stops(folder, artifact, network, unseen):
    model = AdaptedModel.load(folder, threads=1)
    assert model.paths == artifact.paths
    assert model.labels == tuple("0123456789")
    result = model(unseen[0])
    for row in range(25):
        path, answer = by_loop(folder, network, unseen[0][row])
        assert result.path[row] == path
        np.testing.assert_allclose(result.logits[row], answer, atol=1e-3)
    assert len(set(result.path.tolist())) > 1
    one = model(unseen[0][:1])
    assert one.path[0] == result.path[0]


def test_many_stop_early_and_hardly_any_answer_is_lost(folder, artifact, network, unseen):
    x, y = unseen
    result = AdaptedModel.load(folder, threads=1)(x)
    with torch.no_grad():
        own = network(torch.from_numpy(x)).argmax(1).numpy()
    assert artifact.outcome.bound <= 0.05
    assert (result.path < len(artifact.memories)).mean() > 0.3
    assert (result.logits.argmax(1) == y).mean() >= (own == y).mean() - 0.05
    missed = result.path == len(artifact.memories)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x[missed])).numpy()
    np.testing.assert_allclose(result.logits[missed], wanted, atol=1e-3)


def test_parts_answers_and_notes(artifact, network, context):
    shares = [share for _, share in artifact.parts]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    *none, logits = artifact.answers(torch.zeros(2, 1, 8, 8))
    assert none == [None] * len(artifact.memories)
    assert torch.equal(logits, network(torch.zeros(2, 1, 8, 8)))
    assert "answers were lost and" in context.notes[-1]


@pytest.mark.slow
def test_a_point_that_costs_more_than_it_saves_is_dropped_and_named(network, context, monkeypatch, steady):
    notes: list[str] = []
    monkeypatch.setattr(activation_fit, "_lookup_seconds", lambda finder, key: next(dear))
    dear = iter([5.0, 0.01])
    plain = PlainArtifact(network, context.example_inputs)
    kept = ActivationCache(**SETTINGS).wrap(plain, network, context.replace(notes=notes))
    assert len(kept.memories) == 1
    assert "dropped, since they cost more time than they save: caches behind" in notes[0]


def edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(neighbours=0), "is wrong at neighbours"),
        (lambda m: m["stages"][0]["memory"].update(limits=[7.0] * 10), r"is wrong at stages\.0\.memory\.limits"),
        (lambda m: m["stages"][0]["memory"].update(limits=[0.1] * 9), "has 10 classes, 9 limits"),
        (lambda m: m.update(neighbours=601), "holds 600 keys and 600 answers, for 601 neighbours"),
        (lambda m: m["stages"][0].update(memory=None), "has no memory"),
        (lambda m: m["stages"][0].update(file="stages/9.onnx"), r"stages/9\.onnx is not among the files"),
        (lambda m: m["stages"][-1].update(logits=None), "is the last and has no answer"),
        (lambda m: m["stages"][1]["takes"].update(shape=[1]), "does not take what"),
        (lambda m: m["files"][1].update(sha256="0" * 64), "is not the file that manifest.json names"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_a_memory_of_another_build_or_without_its_parts(folder):
    path = folder / "stages" / "0.safetensors"
    save_file({"keys": np.zeros((3, 2), np.float32)}, path)
    with pytest.raises(ModelError, match=r"0\.safetensors is not the file"):
        AdaptedModel.load(folder)
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda m: [f.update(sha256=digest) for f in m["files"] if f["name"] == "stages/0.safetensors"])
    with pytest.raises(ModelError, match="holds no known samples"):
        AdaptedModel.load(folder)


def test_bad_batches(folder):
    model = AdaptedModel.load(folder)
    with pytest.raises(DataError, match="the batch is empty"):
        model(np.zeros((0, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="holds NaN"):
        model(np.full((1, 1, 8, 8), np.nan, np.float32))


def test_activations_that_are_no_numbers_are_like_nothing():
    known = Neighbours(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.full(3, 2.0), 1)
    assert known.look_up(np.full((2, 3), np.nan, np.float32))[1].tolist() == [False, False]


@pytest.mark.slow
def test_what_it_refuses(network, context, steady):
    plain = PlainArtifact(network, context.example_inputs)
    with pytest.raises(TargetError, match=r"no thresholds for a drop of at most 0\.01 points"):
        ActivationCache(**(SETTINGS | {"max_accuracy_drop": 0.0001})).wrap(plain, network, context)
    with pytest.raises(DataError, match="needs training and validation data"):
        ActivationCache().wrap(plain, network, context.replace(train=None))
    few = (torch.randn(3, 1, 8, 8), torch.arange(3))
    with pytest.raises(DataError, match="at least 4 training samples; got 3"):
        ActivationCache(**SETTINGS).wrap(plain, network, context.replace(train=few))
    with pytest.raises(ModelError, match="cannot be left behind nowhere; it can behind"):
        ActivationCache(points=("nowhere",)).wrap(plain, network, context)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.booleans()), max_size=25), st.floats(0.05, 0.9))
def test_risks_are_those_of_a_loop(seen, allowed):
    distances = np.array([d / 30 + i * 1e-6 for i, (d, _, _) in enumerate(seen)])
    labels, wrong = (np.array([s[k] for s in seen], int) for k in (1, 2))
    table = RiskTable(distances, labels, wrong.astype(bool), 2)
    for label in (0, 1):
        mine = [(d, w) for d, own, w in zip(distances, labels, wrong, strict=True) if own == label]

        def risk_at(distance, mine=mine):
            found = [np.inf]
            for limit, _ in mine:
                if limit >= distance:
                    let = [w for d, w in mine if d <= limit]
                    found.append((sum(let) + 1) / (len(let) + 2))
            return min(found)

        for distance in (0.0, 0.31, 0.9, 2.0):
            assert table.risks(np.array([distance]), np.array([label]))[0] == pytest.approx(risk_at(distance))
        good = [d for d, _ in mine if risk_at(d) <= allowed]
        assert table.limits(allowed)[label] == max(good, default=-1.0)
