"""Answers that an activation cache keeps as it runs, on real digits."""

import json
import math
import threading

import numpy as np
import onnxruntime as ort
import pytest
import torch

from adaptkit.conditional import activation_fit
from adaptkit.conditional.activation_cache import ActivationCache, Recalled, Remembered
from adaptkit.conditional.activation_keys import pooled
from adaptkit.conditional.activation_repeats import Recall, Twice
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import DataError, ModelError
from adaptkit.export.packaging import Packaging
from adaptkit.loading.data import load_data
from adaptkit.loading.models import load_model
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.activation_cache import ActivationCache as RunActivations
from adaptkit.runtime.activation_cache import ActivationManifest, CachedStage, Neighbours
from adaptkit.runtime.cache_index import NOTHING
from adaptkit.runtime.learned import Entries, Learned, Met
from adaptkit.runtime.result_cache import AnswerForm
from adaptkit.specs import DataSpec, ModelSpec
from adaptkit.technique import Context

CHANGES = Perturbations(flip=False, noise=0.1)
SETTINGS = {
    "points": 2,
    "entries": 600,
    "neighbours": 4,
    "target_precision": 0.9,
    "max_accuracy_drop": 0.02,
    "capacity": 200,
    "perturbations": CHANGES,
}
CAPACITY = 12
ENTRIES = {"key": "key", "dimensions": 2, "threshold": 0.1, "ratio": 0.5, "min_confidence": 0.6, "trust": 0.8}
ENTRIES |= {"capacity": 8, "eviction": "lru", "answer": AnswerForm(dtype="float32", shape=(2,))}
SURE = np.array([[4, 0], [0, 4]], np.float32)
EYE = np.eye(2, dtype=np.float32)


@pytest.fixture(scope="module")
def network():
    return load_model(ModelSpec(zoo="resnet_digits")).eval()


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(digits=True, validation=500, calibration=50), seed=0)


@pytest.fixture(scope="module")
def context(data):
    return Context(example_inputs=(torch.zeros(1, 1, 8, 8),), train=data.train, validation=data.validation, notes=[])


@pytest.fixture(scope="module")
def steady():
    """Times that no busy machine changes: every stage takes as long, keys and look-ups take nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activation_fit, "stage_seconds", lambda stages, x, threads=1: np.ones(len(stages)))
        patch.setattr(activation_fit, "_lookup_seconds", lambda finder, key: 0.01)
        yield


@pytest.fixture(scope="module")
def artifact(network, context, steady):
    return ActivationCache(**SETTINGS).wrap(PlainArtifact(network, context.example_inputs), network, context)


@pytest.fixture
def folder(artifact, tmp_path):
    artifact.write(tmp_path, Packaging())
    return tmp_path


@pytest.fixture(scope="module")
def unseen(data):
    return torch.cat([x for x, _ in data.test]).numpy()


@pytest.fixture(scope="module")
def stream(unseen):
    """Requests in which things come again, changed a little."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(unseen[rng.zipf(1.3, 120) % 40])
    return CHANGES.apply(x, rng).numpy()


def edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


def kept_in(manifest):
    """The entries of a manifest, and the number of their stage."""
    [(number, stage)] = [(i, stage) for i, stage in enumerate(manifest["stages"]) if stage["entries"]]
    return number, stage["entries"]


class Slow:
    """Run-time entries as a list that is searched by a loop; the next to be given up comes first."""

    def __init__(self, entries):
        self.rule, self.kept = entries, []

    def near(self, key):
        distances = [
            1 - sum(float(a) * float(b) for a, b in zip(key, entry["key"], strict=True)) for entry in self.kept
        ]
        if not distances:
            return None
        best = min(range(len(distances)), key=distances.__getitem__)
        label = self.kept[best]["answer"].argmax()
        others = [d for d, entry in zip(distances, self.kept, strict=True) if entry["answer"].argmax() != label]
        if distances[best] <= self.rule["threshold"] and distances[best] < self.rule["ratio"] * min(others, default=9):
            self.kept.append(self.kept.pop(best))
            return self.kept[-1]
        return None

    def may_answer(self, entry):
        steady = entry["sure"] and entry["agreed"] == entry["runs"]
        return steady or entry["agreed"] + 1 >= self.rule["trust"] * (entry["runs"] + 2)

    def learn(self, entry, key, answer):
        sure = math.exp(answer.max()) / sum(math.exp(a) for a in answer) >= self.rule["min_confidence"]
        if entry is not None:
            same = entry["answer"].argmax() == answer.argmax()
            entry["runs"], entry["agreed"] = entry["runs"] + 1, entry["agreed"] + same
            entry["sure"] |= same and sure
            if 2 * entry["agreed"] >= entry["runs"]:
                return
            self.kept.remove(entry)
        if len(self.kept) == self.rule["capacity"]:
            self.kept.pop(0)
        self.kept.append({"key": key, "answer": answer, "sure": sure, "runs": 1, "agreed": 1})


class ByLoop:
    """Runs one image after the other, stage by stage."""

    def __init__(self, folder):
        from safetensors.numpy import load_file

        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.slow = Slow(kept_in(self.manifest)[1])
        self.sessions = [ort.InferenceSession(folder / stage["file"]) for stage in self.manifest["stages"]]
        self.known = [
            stage["memory"] and load_file(folder / stage["memory"]["file"]) for stage in self.manifest["stages"]
        ]

    def __call__(self, image):
        crossing, learn = image[None], None
        stages = zip(self.manifest["stages"], self.sessions, self.known, strict=True)
        for number, (stage, session, known) in enumerate(stages):
            names = [value.name for value in session.get_outputs()]
            out = dict(zip(names, session.run(None, {stage["takes"]["name"]: crossing}), strict=True))
            answer = None
            if stage["entries"]:
                key = out[stage["entries"]["key"]][0]
                entry = self.slow.near(key)
                if entry and self.slow.may_answer(entry):
                    return number, entry["answer"]
                learn = entry, key
            elif stage["memory"]:
                answer = self.of_known(out[stage["memory"]["key"]][0], known, stage["memory"]["limits"])
            else:
                answer = out[stage["logits"]][0]
            if answer is not None:
                if learn:
                    self.slow.learn(*learn, answer)
                return number, answer
            crossing = out[stage["gives"]["name"]]
        raise AssertionError

    def of_known(self, key, known, limits):
        distances = [1 - float(key @ other) for other in known["keys"]]
        near = sorted(range(len(distances)), key=distances.__getitem__)[: self.manifest["neighbours"]]
        labels = {int(known["answers"][i].argmax()) for i in near}
        if len(labels) == 1 and distances[near[-1]] <= limits[labels.pop()]:
            return known["answers"][near].mean(0)
        return None


def test_a_stream_is_answered_as_by_a_loop(folder, stream):
    edit(folder, lambda m: kept_in(m)[1].update(capacity=CAPACITY, min_confidence=0.97, trust=0.7))
    model, slow = AdaptedModel.load(folder, threads=1), ByLoop(folder)
    ways = []
    for image in stream:
        result, (path, answer) = model(image[None]), slow(image)
        assert result.path[0] == path
        np.testing.assert_allclose(result.logits[0], answer, atol=1e-3)
        ways.append(path)
    statistics = model.runner.statistics
    assert statistics.hits == ways.count(kept_in(slow.manifest)[0])
    assert statistics.entries == len(slow.slow.kept) == CAPACITY
    assert min(statistics.hits, statistics.unsure, statistics.evicted) > 0
    assert 0 < statistics.hit_rate < 1


def test_one_memory_is_kept_where_it_saves_most_and_the_notes_say_so(artifact, context):
    [recalled] = [memory for memory in artifact.memories if isinstance(memory, Recalled)]
    assert recalled is artifact.memories[0]
    assert recalled.entries.capacity == 200
    assert f"behind {recalled.point} (seen before)" in context.notes[-1]
    assert "half of which came before" in context.notes[-1]
    assert artifact.outcome.bound <= 0.02


def test_the_first_time_nothing_is_remembered_and_what_gets_to_the_end_is_the_networks_answer(folder, network, unseen):
    model = AdaptedModel.load(folder, threads=1)
    result = model(unseen[:100])
    number, _ = kept_in(json.loads((folder / "manifest.json").read_text()))
    assert not (result.path == number).any()
    end = result.path == len(model.paths) - 1
    assert end.any()
    with torch.no_grad():
        own = network(torch.from_numpy(unseen[:100][end])).numpy()
    np.testing.assert_allclose(result.logits[end], own, atol=1e-3)


def test_what_comes_again_has_its_answer_until_it_is_forgotten(folder, unseen):
    model = AdaptedModel.load(folder, threads=1)
    x = unseen[:100]
    before = model(x)
    again = model(CHANGES.apply(torch.from_numpy(x), np.random.default_rng(1)).numpy())
    hit = again.path == 0
    assert hit.mean() > 0.5
    same = before.logits.argmax(1) == again.logits.argmax(1)
    assert same[hit].mean() > 0.95
    third = model(x)
    exact = (third.path == 0) & (again.path != 0)
    assert np.isin(third.logits[exact], np.concatenate([before.logits, again.logits])).all()
    model.runner.clear()
    assert not (model(x).path == 0).any()
    assert not (AdaptedModel.load(folder, threads=1)(x).path == 0).any()


def test_many_threads_give_what_one_gives(folder, unseen):
    model, x = AdaptedModel.load(folder, threads=1), unseen[:20]
    alone = AdaptedModel.load(folder, threads=1)(x).logits.argmax(1)
    answers = {}

    def work(seed):
        order = np.random.default_rng(seed).permutation(len(x))
        answers[seed] = order, np.concatenate([model(x[row][None]).logits for row in order]).argmax(1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    for order, given in answers.values():
        assert (given == alone[order]).all()
    statistics = model.runner.statistics
    assert statistics.hits + statistics.misses == 16 * 20
    assert statistics.hits > 16 * 20 / 2


@pytest.mark.parametrize("capacity", [0, None])
def test_nothing_is_kept_where_there_is_no_capacity(network, context, steady, capacity):
    settings = ActivationCache(**(SETTINGS | {"capacity": capacity}))
    made = settings.wrap(PlainArtifact(network, context.example_inputs), network, context)
    assert all(isinstance(memory, Remembered) for memory in made.memories)


@pytest.mark.slow
def test_a_memory_that_saves_no_time_is_dropped_and_named(network, context, monkeypatch, steady):
    dear = iter([0.01] * 3 + [9.0] * 3)
    monkeypatch.setattr(activation_fit, "_lookup_seconds", lambda finder, key: next(dear))
    notes: list[str] = []
    plain = PlainArtifact(network, context.example_inputs)
    made = ActivationCache(**SETTINGS).wrap(plain, network, context.replace(notes=notes))
    assert all(isinstance(memory, Remembered) for memory in made.memories)
    assert "nothing is kept at run time: nowhere would that save time" in notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, r"is wrong at stages\.0\.entries\.threshold"),
        ({"ratio": 0}, r"is wrong at stages\.0\.entries\.ratio"),
        ({"capacity": 0}, r"is wrong at stages\.0\.entries\.capacity"),
        ({"dimensions": 3}, r"0\.onnx does not give .* as tensor\(float\) of \[3\], which the entries of"),
        ({"key": "other"}, "does not give .other., which its manifest names"),
        ({"answer": {"dtype": "float32", "shape": [9]}}, r"does not give .* as tensor\(float\) of \[9\]"),
        ({"answer": {"dtype": "float16", "shape": [10]}}, r"does not give .* as tensor\(float16\) of \[10\]"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    edit(folder, lambda m: kept_in(m)[1].update(change))
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_a_point_has_one_memory(folder):
    memory = {"file": "stages/0.onnx", "key": "key", "limits": [0.1] * 10}
    edit(folder, lambda m: m["stages"][0].update(memory=memory))
    with pytest.raises(ModelError, match="has no memory, or two"):
        AdaptedModel.load(folder)


def test_entries_are_kept_at_one_place(folder):
    def twice(manifest):
        number, _ = kept_in(manifest)
        manifest["stages"].insert(number, manifest["stages"][number] | {"gives": manifest["stages"][number]["takes"]})

    edit(folder, twice)
    with pytest.raises(ModelError, match="kept at the end of more than one stage"):
        AdaptedModel.load(folder)


def test_keys_that_are_no_numbers_are_neither_kept_nor_found():
    learned = Learned(Entries(**ENTRIES))
    keys = np.array([[1, 0], [np.nan, 0]], np.float32)
    learned.learn(learned.look_up(keys)[2], SURE)
    assert learned.statistics.entries == 1
    assert learned.look_up(keys)[1].tolist() == [True, False]


def test_a_network_that_answers_with_nan_leaves_nothing_behind(folder, unseen, monkeypatch):
    model = AdaptedModel.load(folder)
    last = model.runner._stages[-1]
    session = last._session

    class Broken:
        def run(self, *args):
            return [np.full_like(each, np.nan) for each in session.run(*args)]

    monkeypatch.setattr(last, "_session", Broken())
    with pytest.raises(DataError, match="NaN or infinity"):
        model(unseen)
    assert model.runner.statistics.entries == 0


def test_an_answer_the_network_is_not_sure_of_waits_until_it_agreed():
    learned, unsure = Learned(Entries(**ENTRIES)), np.array([[0.1, 0], [0, 0.1]], np.float32)
    seen = []
    for _ in range(4):
        _, hit, met = learned.look_up(EYE)
        seen.append(hit.tolist())
        learned.learn(met, unsure)
    assert seen == [[False, False]] * 3 + [[True, True]]  # after three runs (3 + 1) / (3 + 2) is 0.8
    assert learned.statistics.unsure == 4


@pytest.mark.parametrize(("eviction", "gone"), [("lru", 0), ("lfu", 1)])
def test_what_goes_when_it_is_full(eviction, gone):
    learned = Learned(Entries(**(ENTRIES | {"capacity": 2, "eviction": eviction})))
    learned.learn(learned.look_up(EYE)[2], SURE)
    for row in (0, 0, 1):
        learned.look_up(EYE[row : row + 1])
    new = -EYE[:1]
    learned.learn(learned.look_up(new)[2], SURE[1:])
    assert learned.look_up(EYE)[1].tolist() == [gone != 0, gone != 1]
    assert (learned.statistics.entries, learned.statistics.evicted) == (2, 1)


def test_old_answers_are_forgotten():
    now = [0.0]
    learned = Learned(Entries(**(ENTRIES | {"ttl_seconds": 5.0})), clock=lambda: now[0])
    learned.learn(learned.look_up(EYE)[2], SURE)
    assert learned.look_up(EYE)[1].all()
    now[0] = 5.0
    assert not learned.look_up(EYE)[1].any()
    assert learned.statistics.expired == 2


def test_an_entry_that_went_meanwhile_is_not_blamed():
    learned = Learned(Entries(**(ENTRIES | {"capacity": 1})))
    nothing = Met(EYE[:1], [NOTHING], np.zeros(1, np.int64))
    learned.learn(nothing, np.array([[0.1, 0]], np.float32))
    _, _, met = learned.look_up(EYE[:1])
    learned.learn(Met(EYE[1:], [NOTHING], np.zeros(1, np.int64)), SURE[1:])
    learned.learn(met, SURE[:1])
    assert learned.look_up(EYE[:1])[0][0].tolist() == [4, 0]


class Plain:
    """A session in plain numpy, from a function for each output."""

    def __init__(self, **outputs):
        self.outputs = outputs

    def run(self, names, feed):
        [x] = feed.values()
        return [self.outputs[name](x) for name in names]


def test_answers_stay_with_their_rows_when_others_left_before():
    entries = Entries(**(ENTRIES | {"dimensions": 4}))
    value, memory = {"name": "x", "dtype": "float32", "shape": (4,), "bytes": 16}, {"file": "a", "key": "key"}
    stages = [
        CachedStage(file="0", takes=value, gives=value, memory=memory | {"limits": (0.1, 0.1)}, logits=None),
        CachedStage(file="1", takes=value, gives=value, memory=None, entries=entries, logits=None),
        CachedStage(file="2", takes=value, gives=None, memory=None, logits="logits"),
    ]
    manifest = ActivationManifest.model_construct(neighbours=1, stages=stages)
    axes, logits = np.eye(4, dtype=np.float32), np.array([[5, 0], [0, 0], [0, 5], [9, 0]], np.float32)
    known = Neighbours(axes[1:2], SURE[1:], np.array([0.1, 0.1]), 1)
    crossing = Plain(x=lambda x: x, key=lambda x: x)
    cache = RunActivations(
        [crossing, crossing, Plain(logits=lambda x: x @ logits)], [known, Learned(entries)], manifest
    )
    first, again = cache(axes), cache(axes)
    assert first.path.tolist() == [2, 0, 2, 2]
    assert again.path.tolist() == [1, 0, 1, 1]
    assert again.logits.tolist() == first.logits.tolist() == [[5, 0], [0, 4], [0, 5], [9, 0]]
    assert (cache.statistics.hits, cache.statistics.misses) == (3, 3)


def test_recall_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    first, again = (rng.standard_normal((count, 5)) for count in (30, 60))
    first, again = ((each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in (first, again))
    twice = Twice(np.arange(60) < 30, rng.standard_normal((30, 3)) * 2, rng.standard_normal((60, 3)))
    found = Recall.of(first, again, twice, 0.6)
    labels = twice.first.argmax(1)
    expected, others = [], []
    for key in again:
        distances = [1 - float(key @ other) for other in first]
        best = int(np.argmin(distances))
        others.append(min(d for d, label in zip(distances, labels, strict=True) if label != labels[best]))
        expected.append((best, distances[best]))
    typical = min(1.0, float(np.median(others)))
    assert found.typical == pytest.approx(typical, rel=1e-5)
    for row, ((best, distance), other) in enumerate(zip(expected, others, strict=True)):
        answer = twice.first[best]
        score = distance / min(other, typical)
        sure = np.exp(answer.max()) / np.exp(answer).sum() >= 0.6
        wanted = score if sure and score < 1 else np.inf
        assert found.scores[row] == pytest.approx(wanted, rel=1e-4)
        assert (found.answers[row] == answer).all()
    assert np.isfinite(found.scores).any()
    assert np.isinf(found.scores).any()


def test_up_to_which_score_answers_are_the_networks_own():
    scores = np.append(np.linspace(0, 0.9, 90), np.inf)
    answers = np.where(scores[:, None] < 0.5, [[1, 0]], [[0, 1]])
    found = Recall(scores, answers, 1.0)
    every, own = np.ones(91, bool), np.zeros(91, int)
    assert found.limit(every, own, 0.9) == pytest.approx(scores[np.flatnonzero(scores < 0.5)[-1] + 4], abs=0.02)
    assert found.limit(every, np.ones(91, int), 0.9) == -1


def test_how_sure_the_network_must_be_to_repeat_itself():
    certain = np.linspace(0, 6, 200)
    first = np.stack([certain, np.zeros(200)], 1)
    again = np.where(certain[:, None] > 2, first, -first)  # it contradicts itself where it is not sure
    twice = Twice(np.ones(200, bool), first, again)
    sure = twice.least_confidence(np.ones(200, bool), 0.9)
    assert 1 / (1 + math.exp(-1.4)) < sure <= 1 / (1 + math.exp(-2.0))
    assert Twice(np.ones(200, bool), first, -first).least_confidence(np.ones(200, bool), 0.9) == 1.0


def test_choices_that_stand_together():
    sets = list(activation_fit._sets([False, False, True, True], 2))
    assert sorted(sets) == [(0,), (0, 1), (0, 3), (1,), (2,), (2, 1), (3,)]


def test_numbers_of_tokens_come_again_as_they_were():
    tokens = torch.arange(12).reshape(3, 4)
    assert torch.equal(Perturbations(noise=5.0).apply(tokens, np.random.default_rng(0)), tokens)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 12, 6), (2, 7)])
def test_pooled_is_a_mean_over_cells(shape):
    x = torch.randn(shape)
    found = pooled(x, 2)
    if len(shape) == 4:
        wanted = x.reshape(2, 3, 2, 4, 2, 4).mean((3, 5)).flatten(1)
    elif len(shape) == 3:
        wanted = x.reshape(2, 2, 6, 6).mean(2).transpose(1, 2).flatten(1)
    else:
        wanted = x
    torch.testing.assert_close(found, wanted)
