"""The certificate of artifacts: every answer beside the network of its way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import DataError, ExportMismatch
from adaptkit.export import verify_artifact
from adaptkit.export.packaging import Packaging
from adaptkit.export.verify_artifact import certify_artifact, require_artifact
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime.result import Result
from adaptkit.specs import ExportSpec
from adaptkit.technique import Context

X, Y = torch.randn(12, 4), torch.arange(12) % 3


@pytest.fixture
def plain():
    return PlainArtifact(nn.Linear(4, 3), (X[:2],))


def test_a_plain_artifact_passes(plain, tmp_path):
    plain.write(tmp_path, Packaging())
    found = certify_artifact(plain, tmp_path, [(X[:5], Y[:5]), (X[5:], Y[5:])])
    require_artifact(found)
    right = float((plain.network(X).argmax(1) == Y).float().mean())
    assert (found.passed, found.samples, found.agreement, found.not_compared) == (True, 12, 1.0, 0)
    assert found.accuracy_torch == found.accuracy_onnx == pytest.approx(right)
    (way,) = found.paths
    assert (way.name, way.samples, way.agreement) == ("whole", 12, 1.0)
    assert way.accuracy == way.accuracy_of_all == pytest.approx(right)


def test_integers_are_judged_by_agreement(tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    context = Context(example_inputs=(X[:2],), calibration=(X, Y))
    artifact = PlainArtifact(StaticQuantization(calibration=12, rounding="nearest").apply(net, context), (X[:2],))
    artifact.write(tmp_path, Packaging())
    found = certify_artifact(artifact, tmp_path, [(X, Y)], ExportSpec(min_agreement=0.7))
    assert found.tolerance == pytest.approx(0.3)
    assert "judged by top-1 agreement with the PyTorch simulation, at least 70.0%" in found.notes
    assert sum("saturate" in note for note in found.notes) == 1


def test_another_network_is_found(plain, tmp_path):
    plain.write(tmp_path, Packaging())
    with torch.no_grad():
        plain.network.weight += 0.01
    found = certify_artifact(plain, tmp_path, [(X, Y)])
    assert not found.passed
    with pytest.raises(ExportMismatch, match=r"worst on whole: top-1 agreement .* of 12 samples, largest error 0\.0"):
        require_artifact(found)


class Ways:
    """Answers by the sample's number: way 0 is right, way 1 says something else than its network, way 2 has none."""

    paths = ("net", "other", "hit")
    parts = ()

    def answers(self, x):
        return [torch.eye(3)[x[:, 0].long() % 3], -torch.eye(3)[x[:, 0].long() % 3], None]


class Runtime:
    paths = Ways.paths

    def __init__(self, ways):
        self.ways, self.batches = ways, []

    def expected_input(self, x):
        return x

    def __call__(self, x):
        self.batches.append(len(x))
        number = x[:, 0].astype(int)
        return Result(np.eye(3, dtype=np.float32)[number % 3], self.ways[number], {}, np.zeros(len(x)))


def _certify(monkeypatch, tmp_path, ways, metrics=()):
    runtime = Runtime(np.array(ways))
    monkeypatch.setattr(verify_artifact, "AdaptedModel", SimpleNamespace(load=lambda folder, threads: runtime))
    x = torch.arange(len(ways)).float()[:, None]
    found = certify_artifact(Ways(), tmp_path, [(x[:4], Y[:4]), (x[4:], Y[4 : len(ways)])], metrics=metrics)
    assert runtime.batches == [1] * len(ways)
    return found


def test_ways_are_told_apart(monkeypatch, tmp_path):
    found = _certify(monkeypatch, tmp_path, [0, 0, 1, 2, 2, 1])
    net, other, hit = found.paths
    assert (net.samples, net.agreement, net.accuracy, net.accuracy_of_all) == (2, 1.0, 1.0, 1.0)
    assert (other.samples, other.agreement, other.accuracy, other.accuracy_of_all) == (2, 0.0, 1.0, 0.0)
    assert (hit.samples, hit.agreement, hit.accuracy, hit.accuracy_of_all) == (2, None, 1.0, None)
    assert (found.passed, found.samples, found.not_compared, found.agreement) == (False, 6, 2, 0.5)
    assert found.notes == ["2 of 6 samples took a way without a network of its own, and were not compared"]
    assert sum(point.samples for point in found.calibration) == 6
    with pytest.raises(ExportMismatch, match=r"worst on other: top-1 agreement 50\.00% of 4 samples"):
        require_artifact(found)


def test_metrics_are_of_what_the_artifact_answers_on_every_way(monkeypatch, tmp_path):
    found = _certify(monkeypatch, tmp_path, [0, 0, 1, 2, 2, 1], ("accuracy", "top2"))
    assert (found.metrics["accuracy"].value, found.metrics["accuracy"].samples) == (1.0, 6)
    assert found.accuracy_torch == 0.5  # of the networks behind those that have one


def test_a_way_that_nobody_took(monkeypatch, tmp_path):
    found = _certify(monkeypatch, tmp_path, [0, 0, 2, 2, 0])
    assert found.passed
    assert (found.paths[1].samples, found.paths[1].agreement, found.paths[1].accuracy) == (0, None, None)


def test_where_nothing_can_be_compared_nothing_is_proved(monkeypatch, tmp_path):
    found = _certify(monkeypatch, tmp_path, [2, 2, 2, 2, 2])
    assert (found.passed, found.agreement, found.not_compared) == (False, 0.0, 5)
    with pytest.raises(ExportMismatch, match="its PyTorch networks answer: top-1 agreement"):
        require_artifact(found)


def test_no_test_sample(plain, tmp_path):
    plain.write(tmp_path, Packaging())
    with pytest.raises(DataError, match="the test split is empty"):
        certify_artifact(plain, tmp_path, [])
