"""The parts of the suites, with no peer; CI runs them in full by `python -m benchmarks run --all --size smoke`."""

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.loading.models import load_model
from adaptkit.profiling.macs import count_macs
from adaptkit.specs import ModelSpec
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from benchmarks.harness.peers import Peers
from benchmarks.harness.suite import Place, outcome
from benchmarks.suites import cache_lookup, chain, distillation, early_exit, factorization, pruning, quantization
from benchmarks.suites.indexes import Needs, indexes
from benchmarks.suites.pruners import layer_by_layer


@pytest.fixture
def without_peers(monkeypatch):
    monkeypatch.setattr(Peers, "module", lambda self, name, part="": None)


def smoke(tmp_path):
    return Place("smoke", None, tmp_path, Peers())


def test_better_equal_and_worse():
    assert outcome(1.0, 2.0, lower_is_better=True) == "better"
    assert outcome(1.0, 2.0, lower_is_better=False) == "worse"
    assert outcome(1.0, 1.01, lower_is_better=True) == "equal"


def test_look_ups_find_what_is_there(tmp_path, without_peers):
    figures = cache_lookup.run(smoke(tmp_path))
    exact = figures["keys"]["1000"]["adaptkit, exact"]
    assert (exact["recall"], exact["recall_of_strangers"]) == (1.0, 1.0)
    assert figures["keys"]["1000"]["adaptkit, lists"]["recall"] > 0.8
    assert cache_lookup.verdicts(figures) == []
    assert "| adaptkit, lists |" in cache_lookup.table(figures)


def test_every_index_finds_a_stored_key():
    keys = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    for name, face in indexes(Peers(), Needs(50, 8, keys[:4], 4)).items():
        if name == "usearch, exact":  # searches what the graph of the same name stores
            assert face.search(keys[7]) == 7
            continue
        for slot, key in enumerate(keys):
            face.add(slot, key)
        assert face.search(keys[7]) == 7, name


def test_faster_peers_are_a_loss():
    one = {"recall": 1.0, "recall_of_strangers": 1.0, "add_us": 1.0}
    figures = {"keys": {"10": {
        "adaptkit, exact": {**one, "exact": True, "search_us": 2.0},
        "adaptkit, lists": {**one, "exact": False, "search_us": 2.0},
        "peer, exact": {**one, "exact": True, "search_us": 3.0},
        "peer, lists": {**one, "exact": False, "search_us": 1.0},
        "peer, bad": {**one, "exact": False, "search_us": 0.1, "recall": 0.5},
    }}}  # fmt: skip
    exact, rough = cache_lookup.verdicts(figures)
    assert (exact.outcome, exact.peer) == ("better", "peer, exact")
    assert (rough.outcome, rough.peer) == ("worse", "peer, lists")


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_layer_by_layer_leaves_the_share_and_a_network_that_runs(share):
    model, example = resnet20_cifar().eval(), torch.zeros(2, 3, 32, 32)
    small = layer_by_layer(model, example, share)
    left = count_macs(small, (example,)).total / count_macs(model, (example,)).total
    assert abs(left - share) < 0.1
    assert small(example).shape == (2, 10)
    assert model.layer1[0].conv1.out_channels == 16


def test_layer_by_layer_keeps_the_largest_filters():
    model = load_model(ModelSpec(zoo="resnet_digits"))
    with torch.no_grad():
        model.stage1[0].conv1.weight[5:] *= 1e-3
    small = layer_by_layer(model, torch.zeros(1, 1, 8, 8), 0.5)
    first = model.stage1[0].conv1.weight[:5]
    assert torch.equal(small.stage1[0].conv1.weight[:5], first)


def test_factorization_measures_error_by_impulses(tmp_path, without_peers):
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    half = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    half.weight.data = conv.weight.data / 2
    assert factorization._error(nn.Sequential(half), {"0": conv}) == pytest.approx(0.5)


def test_a_fast_factorization_that_is_far_off_is_no_rival():
    def way(error, speed):
        return {"error": error, "seconds": 1.0, "t1_b1": {"median": speed}}

    ways = {"Tucker, adaptkit": way(0.5, 2.0), "Tucker, a": way(0.99, 9.0), "Tucker, b": way(0.4, 1.0)}
    ways |= {"CP, adaptkit": way(0.5, 2.0)}
    error, _, latency = factorization.verdicts({"ways": ways})
    assert (error.peer, error.outcome) == ("b", "worse")
    assert (latency.peer, latency.outcome) == ("b", "better")


def test_pruning_compares_the_most_accurate_and_then_the_fastest_as_good():
    def way(accuracy, speed, macs):
        return {"accuracy": accuracy, "macs": macs, "faster": {"t1_b1": {"median": speed}}}

    ways = {
        "original": way(0.9, 1.0, 100),
        "adaptkit, a": way(0.85, 1.4, 50),
        "adaptkit, b": way(0.82, 1.7, 45),
        "adaptkit, c": way(0.80, 1.9, 40),
        "peer, large": way(0.89, 1.2, 57.5),
        "peer, small": way(0.81, 1.5, 50),
        "peer, fast": way(0.80, 1.8, 50),
        "peer, broken": {"failed": "so"},
    }
    figures = {"ways": ways, "share": 0.5, "epochs": 1, "coverage": None}
    top, speed = pruning.verdicts(figures)
    assert (top.ours, top.theirs, top.peer) == ("85.00 %", "81.00 %", "peer, small")
    assert (speed.ours, speed.theirs) == ("1.90 × faster, 80.00 %", "1.80 × faster, 80.00 %")
    ways["adaptkit, c"]["accuracy"] = 0.79
    assert pruning.verdicts(figures)[1].outcome == "worse"
    del ways["peer, small"], ways["peer, fast"]
    assert pruning.verdicts(figures) == []


def test_pruning_says_what_failed(tmp_path):
    def broken(model, example, share):
        raise RuntimeError("shapes do not fit\nmore")

    found = pruning._one(broken, nn.Linear(2, 2), torch.zeros(1, 2), None, 1.0, tmp_path / "a.onnx", 0)
    assert found == {"failed": "RuntimeError: shapes do not fit"}


def test_the_chain_that_is_chosen_is_the_fastest_within_the_limit():
    def found(accuracy, speed):
        return {"accuracy_when_chosen": accuracy, "faster": {"t1_b1": {"median": speed}}}

    chosen = chain._chosen({
        "original": found(0.9, 1.0), "adaptkit: a": found(0.895, 2.0), "adaptkit: b": found(0.88, 9.0),
        "peer": found(0.5, 9.0),
    })  # fmt: skip
    assert chosen == {"adaptkit": "adaptkit: a", "peers": None}


def test_losses_without_torchdistill_are_an_empty_table(tmp_path, without_peers):
    assert distillation.run(smoke(tmp_path)) == {"losses": {}}


def test_losses_that_are_equal(tmp_path):
    pytest.importorskip("torchdistill")
    figures = distillation.run(smoke(tmp_path))
    assert max(found["difference"] for found in figures["losses"].values()) < 1e-5
    assert max(found["gradient_difference"] for found in figures["losses"].values()) < 1e-5


def test_exits_are_compared_with_the_fastest_static_network_that_is_as_good():
    ways = {
        "adaptkit, early exits": {"accuracy": 0.9, "mean_ms": 2.0},
        "static, a": {"accuracy": 0.9, "mean_ms": 1.0},
        "static, b": {"accuracy": 0.8, "mean_ms": 0.1},
    }
    [verdict] = early_exit.verdicts({"ways": ways})
    assert (verdict.peer, verdict.outcome) == ("static, a", "worse")
    _, verdict = early_exit.verdicts({"ways": {**ways, "earlyon, joint": {"accuracy": 0.5, "mean_ms": 3.0}}})
    assert (verdict.theirs, verdict.outcome) == ("3.000 ms at 50.00 %", "better")
    assert early_exit.verdicts({"ways": {"static, a": ways["static, a"]}}) == []


def test_integers_are_compared_with_the_best_peer_of_each_kind():
    def way(accuracy, speed, seconds):
        return {"accuracy": accuracy, "speedup": {"b1": {"median": speed}}, "cpu_seconds": seconds}

    ways = {
        "float32": way(0.99, 1.0, 0.0), "adaptkit auto": way(0.9, 2.0, 8.0),
        "adaptkit auto, learned rounding": way(0.95, 2.0, 30.0),
        "onnxruntime 8 bits": way(0.8, 1.9, 1.0), "nncf 8 bits": way(0.93, 1.5, 5.0),
        "neural-compressor 8 bits": {"refused": "no kernel"},
    }  # fmt: skip
    default, learned, speed, seconds = quantization._of_one("net", ways)
    assert [each.peer for each in (default, learned)] == ["nncf 8 bits"] * 2
    assert [each.outcome for each in (default, learned, speed, seconds)] == ["worse", "better", "better", "worse"]
