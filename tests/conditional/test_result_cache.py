"""A result cache from samples to files, before a network of the zoo, on real digits."""

import functools
import json
import threading
import warnings

import numpy as np
import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import beta
from torch import nn

from adaptkit.conditional.base import opened
from adaptkit.conditional.cachier import best_capacity, lfu_miss_rate, lru_miss_rate, zipf
from adaptkit.conditional.hit_threshold import LookUps, apply_rule, choose_rule
from adaptkit.conditional.keys import KeyMaker, centres, discriminant, mirrored, perceptual_hash, pooled
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditional.result_cache import Lists, Popularity, ResultCache
from adaptkit.errors import DataError, ModelError, TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.loading.data import load_data
from adaptkit.loading.models import load_model
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.cache_index import Nearest
from adaptkit.runtime.cache_order import LeastRecent
from adaptkit.runtime.cache_store import runs_to_trust
from adaptkit.specs import DataSpec, ModelSpec
from adaptkit.technique import Context

MILD = Perturbations(crop=0, flip=False, noise=0.05)
SETTINGS = {"perturbations": MILD, "target_precision": 0.97, "shadow_rate": 0.0, "capacity": 500}


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(digits=True, validation=500, calibration=300), seed=0)


@pytest.fixture(scope="module")
def network():
    return load_model(ModelSpec(zoo="lenet5_digits")).eval()


@pytest.fixture(scope="module")
def context(data):
    return Context(example_inputs=(torch.zeros(1, 1, 8, 8),), validation=data.validation, calibration=data.calibration)


@pytest.fixture(scope="module")
def unseen(data):
    return torch.cat([x for x, _ in data.test]).numpy()


@functools.cache
def plain(network):
    """Exported once for all tests."""
    return PlainArtifact(network, (torch.zeros(1, 1, 8, 8),))


def wrap(network, context, **settings):
    return ResultCache(**(SETTINGS | settings)).wrap(plain(network), network, context)


@pytest.fixture(scope="module")
def artifact(network, context):
    return wrap(network, context)


@pytest.fixture
def folder(artifact, tmp_path):
    artifact.write(tmp_path, Packaging(labels=tuple("0123456789")))
    return tmp_path


def test_what_was_seen_is_answered_from_memory_and_the_rest_by_the_model(folder, network, unseen):
    model, x = AdaptedModel.load(folder, threads=1), unseen[:60]
    assert model.paths == ("hit", "miss: whole")
    assert model.labels == tuple("0123456789")
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    first = model(x[:30])
    assert first.path.tolist() == [1] * 30
    np.testing.assert_allclose(first.logits, wanted[:30], atol=1e-4)
    sure = np.exp(wanted[:30]).max(1) / np.exp(wanted[:30]).sum(1) >= model.runner.manifest.min_confidence
    again = model(x)  # hits and misses in one batch
    clear = again.path[:30] == 0
    assert not clear[~sure].any()
    assert clear.sum() > 0.6 * sure.sum()
    assert (again.path[30:] == 1).sum() > 4  # other digits of a class can look alike
    np.testing.assert_allclose(again.logits[:30][clear], first.logits[clear])
    np.testing.assert_allclose(again.logits[again.path == 1], wanted[again.path == 1], atol=1e-4)
    assert (again.waited[again.path == 1] > again.waited[again.path == 0].max()).all()
    seen = model.runner.statistics
    assert (seen.hits, seen.misses) == (int((again.path == 0).sum()), 90 - int((again.path == 0).sum()))
    assert {each.name: each.samples for each in model.statistics} == {"hit": seen.hits, "miss: whole": seen.misses}


def test_only_misses_run(folder, unseen):
    model = AdaptedModel.load(folder, threads=1)
    sizes, inner = [], model.runner.inner

    class Counting:
        first, paths = inner.first, inner.paths

        def __call__(self, x):
            sizes.append(len(x))
            return inner(x)

    model.runner.inner = Counting()
    model(unseen[:20])
    result = model(unseen[:25])
    assert sizes == [20, int((result.path == 1).sum())]
    model(unseen[:20])  # are all stored; others may stand closer to what came after them
    assert len(sizes) == 2


def test_hits_are_as_precise_as_promised(folder, network, unseen):
    """On images the rule was not chosen on."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(unseen[rng.integers(0, 100, 600)])
    x = MILD.apply(x, rng).numpy()
    model = AdaptedModel.load(folder, threads=1)
    result = [model(image[None]) for image in x]
    path, given = (np.concatenate([getattr(each, name) for each in result]) for name in ("path", "logits"))
    with torch.no_grad():
        own = network(torch.from_numpy(x)).argmax(1).numpy()
    hit = path == 0
    assert hit.mean() > 0.4
    assert (given.argmax(1) == own)[hit].mean() > 0.95


@pytest.mark.parametrize("kind", [{"key": "hash", "target_precision": 0.8}, {"search": Lists(lists=8, probes=5)}])
def test_other_keys_and_searches(network, context, kind, unseen):
    artifact = wrap(network, context, **kind)
    with opened(artifact) as model:
        model(unseen[:50])
        again = model(unseen[:50])
        assert model.runner.manifest.unit == ("bits" if "key" in kind else "cosine")
    assert (again.path == 0).sum() > 15


def test_the_rule_is_the_one_that_a_loop_checks(network, context):
    notes: list[str] = []
    artifact = wrap(network, context.replace(notes=notes))
    rule = artifact.rule
    allowed = 1 - beta.ppf(0.05, rule.hits - rule.wrong, rule.wrong + 1)
    assert rule.precision_bound == pytest.approx(1 - allowed, abs=1e-9)
    assert rule.precision_bound >= 0.97
    assert f"{rule.hits} hit, {rule.wrong} of these" in notes[0]
    assert "% were false hits (" in notes[0]


def test_parts_and_answers(artifact, network):
    x = torch.zeros(2, 1, 8, 8)
    (key, always), (_, share) = artifact.parts
    assert always == 1.0
    assert share == pytest.approx(1 - artifact.hit_rate)
    assert ort.InferenceSession(key.SerializeToString()).run(None, {"input": x.numpy()})[0].shape == (
        2,
        artifact.dimensions,
    )
    none, logits = artifact.answers(x)
    assert none is None
    assert torch.equal(logits, network(x))


def test_a_cache_before_a_cache(network, context, unseen):
    inner = wrap(network, context)
    outer = ResultCache(**(SETTINGS | {"target_precision": 0.9})).wrap(inner, network, context)
    assert outer.paths == ("hit", "miss: hit", "miss: miss: whole")
    with opened(outer) as model:
        assert model(unseen[:5]).path.tolist() == [2] * 5
        model.runner.clear()
        assert 1 in model(unseen[:5]).path


def test_pixels_in_the_graph(artifact, tmp_path, unseen):
    """Keys and answers are the same whether the files normalize or the caller does."""
    artifact.write(tmp_path, Packaging(mean=(0.3,), std=(0.4,)))
    model = AdaptedModel.load(tmp_path, threads=1)
    x = model.expected_input(unseen[:4])
    with opened(artifact) as bare:
        np.testing.assert_allclose(model.runner.keys(x), bare.runner.keys(unseen[:4]), atol=1e-4)
        np.testing.assert_allclose(model(x).logits, bare(unseen[:4]).logits, atol=1e-3)


def test_shadowed_hits_run_the_model_and_wrong_entries_wait(artifact, tmp_path, network, unseen):
    artifact.write(tmp_path, Packaging())
    edit(tmp_path, lambda m: m.update(shadow_rate=1.0))
    model, x = AdaptedModel.load(tmp_path, threads=1), unseen[:20]
    model(x)
    again = model(x)
    seen = model.runner.statistics
    assert again.path.tolist() == [1] * 20
    assert seen.hits == seen.shadowed == seen.agreed > 10
    assert seen.precision == 1.0
    assert seen.precision_low == pytest.approx(beta.ppf(0.025, seen.agreed, 1), abs=1e-6)
    store, before = model.runner._store, len(model.runner._store)
    store._answers[:] = np.roll(store._answers, 1, axis=1)  # every entry is wrong now
    with torch.no_grad():
        assert (model(x).logits.argmax(1) == network(torch.from_numpy(x)).argmax(1).numpy()).all()
    after = model.runner.statistics
    assert after.agreed == seen.agreed
    assert after.entries >= before
    assert after.unsure == seen.unsure
    model(x)
    last = model.runner.statistics
    assert last.hits == after.hits
    assert last.unsure > after.unsure
    assert after.precision < 1


def test_what_the_model_is_unsure_of_is_asked_again_until_it_is_trusted(artifact, tmp_path, unseen):
    artifact.write(tmp_path, Packaging())
    edit(tmp_path, lambda m: m.update(min_confidence=1.0, trust=0.8))
    model, x = AdaptedModel.load(tmp_path, threads=1), unseen[:20]
    for _ in range(runs_to_trust(0.8)):
        assert model(x).path.tolist() == [1] * 20
    assert (model(x).path == 0).sum() > 12
    assert model.runner.statistics.unsure > 20


def test_answers_that_are_asked_for_again_add_hits(network, context):
    rules = {trust: wrap(network, context, trust=trust, min_confidences=(0.7,)).rule for trust in (0.95, 1.0)}
    assert rules[0.95].hits > rules[1.0].hits


def test_saved_entries_come_back(folder, unseen):
    model, x = AdaptedModel.load(folder, threads=1), unseen[:40]
    model(x)
    hits = model(x).path
    assert model.runner.save() == model.runner.statistics.entries
    assert AdaptedModel.load(folder, threads=1)(x).path.tolist() == hits.tolist()
    model.runner.clear()
    assert model(x[:1]).path.tolist() == [1]


def test_entries_of_another_model_or_of_other_keys_are_not_served(folder, network, context, unseen, tmp_path_factory):
    model = AdaptedModel.load(folder, threads=1)
    model(unseen[:20])
    model.runner.save()
    other = tmp_path_factory.mktemp("other")
    changed = load_model(ModelSpec(zoo="lenet5_digits")).eval()
    with torch.no_grad():
        next(changed.parameters()).mul_(1.001)
    wrap(changed, context).write(other, Packaging())
    (other / "entries.cache").write_bytes((folder / "entries.cache").read_bytes())
    with pytest.warns(UserWarning, match=r"holds answers of another model.*The cache starts empty"):
        opened_ = AdaptedModel.load(other)
    assert opened_.runner.statistics.entries == 0
    preprocessed = tmp_path_factory.mktemp("preprocessed")
    wrap(network, context).write(preprocessed, Packaging(mean=(0.1,), std=(0.2,)))
    (preprocessed / "entries.cache").write_bytes((folder / "entries.cache").read_bytes())
    with pytest.warns(UserWarning, match="another preprocessing"):
        AdaptedModel.load(preprocessed)


def test_a_damaged_file_is_dropped_and_said_so(folder, unseen):
    model = AdaptedModel.load(folder, threads=1)
    model(unseen[:20])
    model.runner.save()
    path = folder / "entries.cache"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="is damaged"):
        again = AdaptedModel.load(folder)
    assert again(unseen[:1]).path.tolist() == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.runner.save()
        AdaptedModel.load(folder)


def test_entries_of_another_form_are_not_served(folder, unseen):
    from adaptkit.runtime.cache_file import write_entries

    model = AdaptedModel.load(folder, threads=1)
    write_entries(folder / "entries.cache", model.runner.manifest.fingerprint, {"keys": np.zeros((2, 3), np.float32)})
    with pytest.warns(UserWarning, match="holds entries of another form"):
        assert model.runner.restore() == 0


def test_ten_thousand_calls_from_many_threads(folder, network, unseen):
    model, x = AdaptedModel.load(folder, threads=1), unseen[:50]
    model(x)
    with torch.no_grad():
        own = network(torch.from_numpy(x)).argmax(1).numpy()
    wrong = []

    def work(seed):
        places = np.random.default_rng(seed).integers(0, 50, 200)
        wrong.extend(place for place in places if model(x[place][None]).logits[0].argmax() != own[place])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    seen = model.runner.statistics
    assert seen.hits + seen.misses == 10_050
    assert seen.entries <= 500


def test_broken_answers_are_neither_given_nor_stored(network, context, artifact, tmp_path):
    from dataclasses import replace

    broken = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        broken[1].weight[:] = float("nan")
    replace(artifact, inner=PlainArtifact(broken, context.example_inputs)).write(tmp_path, Packaging())
    model = AdaptedModel.load(tmp_path)
    with pytest.raises(DataError, match="answers with NaN or infinity"):
        model(np.zeros((2, 1, 8, 8), np.float32))
    assert model.runner.statistics.entries == 0
    with pytest.raises(DataError, match="the batch is empty"):
        model(np.zeros((0, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="holds NaN"):
        model(np.full((1, 1, 8, 8), np.nan, np.float32))


def edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=7), "is of version 7"),
        (lambda m: m.update(threshold=-0.1), "is wrong at threshold"),
        (lambda m: m.update(threshold=1.5), "the threshold is 1.5, and must be less than 1"),
        (lambda m: m.update(ratio=1.5), "is wrong at ratio"),
        (lambda m: m.update(trust=0.5), "is wrong at trust"),
        (lambda m: m.update(capacity=0), "is wrong at capacity"),
        (lambda m: m.update(unit="miles"), "is wrong at unit"),
        (lambda m: m.update(unit="bits"), "a hash has 64 bits and no lists"),
        (lambda m: m.update(probes=2), r"lists\.safetensors is not among the files"),
        (lambda m: m["files"].pop(0), "no file of inner is among the files"),
        (
            lambda m: m["files"].__setitem__(slice(None), [f for f in m["files"] if f["name"] != "key.onnx"]),
            "key.onnx is not among",
        ),
        (lambda m: m["files"][0].update(sha256="0" * 64), "is not the file that manifest.json names"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_answers_of_another_form(folder, unseen):
    edit(folder, lambda m: m["answer"].update(shape=[7]))
    with pytest.raises(
        ModelError, match=r"the model inside answers float32 \[10\], the cache was made for float32 \[7\]"
    ):
        AdaptedModel.load(folder)(unseen[:1])


def test_it_refuses_and_says_how_far_it_got(network, context):
    with pytest.raises(
        TargetError, match=r"hits that are right in at least 99\.9 %.*even without an error it takes 2995 hits"
    ):
        wrap(network, context, target_precision=0.999)


def test_a_stream_of_one_class(network, context, data):
    x, y = (torch.cat(each) for each in zip(*data.validation, strict=True))
    zeros = Context(
        example_inputs=context.example_inputs, calibration=data.calibration, validation=(x[y == 0], y[y == 0])
    )
    artifact = wrap(network, zeros, target_precision=0.8)
    assert artifact.rule.threshold < 1
    with opened(artifact) as model:
        assert set(model(x[y == 1].numpy()).logits.argmax(1)) == set(network(x[y == 1]).argmax(1).tolist())


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"validation": None}, {}, "needs validation and calibration data"),
        (
            {"validation": (torch.zeros(1, 1, 8, 8), torch.zeros(1).long())},
            {},
            "at least two validation samples; got 1",
        ),
        (
            {"calibration": (torch.zeros(9, 1, 8, 8), torch.zeros(9).long())},
            {"perturbations": {"noise": 0}},
            "all inputs look the same",
        ),
        ({}, {"key": "hash", "cells": 2}, r"needs at least 16 frequencies, images of 2 × 2 have 4"),
    ],
)
def test_data_that_does_not_do(network, context, change, settings, message):
    with pytest.raises(DataError, match=message):
        wrap(network, context.replace(**change), **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"key": "dream"},
        {"trust": 0.5},
        {"target_precision": 1.0},
        {"ttl_seconds": 0},
        {"search": {"lists": 1}},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValidationError):
        ResultCache(**wrong)
    assert ResultCache(key="hash", search=Lists()).check(nn.Identity()) == [
        "lists are for embeddings: a hash is searched exactly"
    ]


def test_the_capacity_with_the_least_expected_latency(network, context):
    notes: list[str] = []
    artifact = wrap(network, context.replace(notes=notes), capacity=Popularity(items=2000, exponent=1.2))
    assert artifact.capacity in (300, 1000, 2000)
    assert "they have the least expected latency" in notes[1]


def test_miss_rates_are_those_of_a_played_stream():
    rng = np.random.default_rng(0)
    shares = zipf(200, 1.0)
    order, misses, slots = LeastRecent(), 0, set()
    for item in rng.choice(200, 40_000, p=shares).tolist():
        if item in slots:
            order.touch(item)
            continue
        misses += 1
        if len(slots) == 40:
            gone = order.victim()
            order.remove(gone)
            slots.remove(gone)
        order.add(item)
        slots.add(item)
    assert lru_miss_rate(shares, 40) == pytest.approx(misses / 40_000, abs=0.01)
    assert lfu_miss_rate(shares, 40) == pytest.approx(1 - sum(sorted(shares.tolist())[-40:]))
    assert lru_miss_rate(shares, 200) == lfu_miss_rate(shares, 200) == 0
    assert lfu_miss_rate(shares, 40) < lru_miss_rate(shares, 40)


def test_the_best_capacity_is_the_one_of_a_loop():
    sizes, lookups, misses = (1, 2, 3, 4), (0.1, 0.1, 0.3, 0.9), (0.9, 0.4, 0.35, 0.29)
    assert best_capacity(sizes, lookups, misses, 2.0) == (2, pytest.approx(0.1 + 0.8))
    assert best_capacity(sizes, (5, 5, 5, 5), (0.5,) * 4, 1.0)[0] == 1


def test_rules_hold_as_often_as_they_say():
    """Draws from one distribution: the rule's true precision is below the target in at most about one of twenty."""
    rng, missed, taken = np.random.default_rng(0), 0, 0
    for seed in range(20):
        distances = rng.random(600)
        same = rng.random(600) >= 0.3 * np.maximum(0, distances - 0.4)
        found = LookUps(Nearest(np.zeros(600, int), distances, np.ones(600)), same, same, same)
        try:
            rule = choose_rule({0.0: found}, 0.95, 1.0, seed=seed)
        except TargetError:
            continue
        taken += 1
        end = min(rule.threshold, rule.ratio)
        truth = 1 - 0.15 * max(0, end - 0.4) ** 2 / end
        missed += truth < 0.95
    assert taken > 14
    assert missed <= 3


def test_a_rule_counts_what_it_lets_through():
    nearest = Nearest(np.arange(4), np.array([0.1, 0.1, 0.1, 0.5]), np.array([0.2, 0.11, np.inf, np.inf]))
    found = LookUps(
        nearest, np.array([True, False, False, True]), np.ones(4, bool), np.array([True, False, True, True])
    )
    assert (apply_rule(found, 0.2, 0.6, 0).hits, apply_rule(found, 0.2, 0.6, 0).wrong) == (2, 1)
    assert apply_rule(found, 0.2, 1.0, 0).hits == 3
    assert apply_rule(found, 0.2, 1.0, 0).at_once == 2
    assert apply_rule(found, 0.5, 0.6, 0).hits == 3


def test_shifts_and_mirrors_are_those_of_a_loop():
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    for seed in range(10):
        given = Perturbations(crop=0.25, noise=0).apply(x, np.random.default_rng(seed))
        for image, old in zip(given, x, strict=True):
            found = [
                (down, right, flip)
                for down in range(-2, 3)
                for right in range(-2, 3)
                for flip in (False, True)
                if torch.equal(image, shifted(old, down, right).flip(2) if flip else shifted(old, down, right))
            ]
            assert len(found) == 1


def shifted(image, down, right):
    made = torch.empty_like(image)
    for row in range(8):
        for column in range(8):
            made[:, row, column] = image[:, min(7, max(0, row + down)), min(7, max(0, column + right))]
    return made


def test_noise_alone_on_vectors():
    x = torch.zeros(1000, 5)
    assert float(Perturbations(noise=0.3).apply(x, np.random.default_rng(0)).std()) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("shape", [(3, 9, 8), (12,), (2, 3, 3)])
def test_key_graphs_compute_what_torch_does(unit, shape):
    x = torch.randn(5, *shape)
    flat = pooled(x, 4)
    mean, projection = torch.randn(flat.shape[1]), torch.randn(flat.shape[1], 6)
    proto = KeyMaker(4, mean, projection, unit).onnx(shape)
    given = ort.InferenceSession(proto.SerializeToString()).run(None, {"input": x.numpy()})[0]
    wanted = (flat - mean) @ projection
    wanted = nn.functional.normalize(wanted, dim=1) if unit else wanted
    np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4)


def test_an_input_like_no_other_has_a_key_of_zeros():
    proto = KeyMaker(4, torch.ones(4), torch.eye(4)).onnx((4,))
    given = ort.InferenceSession(proto.SerializeToString()).run(None, {"input": np.ones((1, 4), np.float32)})[0]
    assert given.tolist() == [[0.0] * 4]


def test_keys_of_mirror_images_are_the_same():
    x = torch.randn(5, 3, 8, 8)
    for projection in (mirrored(torch.randn(3 * 16, 6), 3, 4, 4), perceptual_hash(3, 4, 4, flip=False)[:, :4] * 0):
        torch.testing.assert_close(pooled(x, 4) @ projection, pooled(x.flip(3), 4) @ projection)
    bits = perceptual_hash(3, 8, 8, flip=True)
    torch.testing.assert_close(pooled(x, 8) @ bits, pooled(x.flip(3), 8) @ bits, atol=1e-5, rtol=1e-4)
    assert bits.shape == (192, 64)
    assert int(bits.abs().sum(0).gt(0).sum()) == 32


def test_the_discriminant_is_the_best_of_many_directions():
    torch.manual_seed(0)
    values, changes = (
        torch.randn(200, 4) * torch.tensor([3.0, 1, 1, 1]),
        torch.randn(200, 4) * torch.tensor([2.0, 0.1, 1, 1]),
    )
    best = discriminant(values, changes, 1)[:, 0]

    def worth(direction):
        return float(((values - values.mean(0)) @ direction).square().mean() / (changes @ direction).square().mean())

    assert all(worth(torch.randn(4)) <= 1.05 * worth(best) for _ in range(300))


def test_centres_are_where_the_keys_are():
    means = torch.eye(6)[:3]
    keys = torch.nn.functional.normalize(means.repeat(50, 1) + 0.05 * torch.randn(150, 6), dim=1)
    found = centres(keys, 12, seed=0)
    assert float((keys @ found.T).max(1).values.min()) > 0.95
    assert float((found.square().sum(1) - 1).abs().max()) < 1e-5
