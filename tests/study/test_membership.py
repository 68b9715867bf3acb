"""Membership inference on a network that knows its samples by heart, and on one that knows nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit import fit
from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.data import load_data
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import DataSpec, Normalization
from adaptkit.study.member import Membership
from adaptkit.study.retrained import fresh
from adaptkit.study.subject import Subject
from adaptkit.training.settings import FitSettings

SIDE = 40
"""More pixels than pictures: one picture's label tells next to nothing of another's."""
FIT = FitSettings(optimizer="adamw", learning_rate=0.003, weight_decay=0.0)
CENTRED = Normalization(mean=(0.5,), std=(0.3,))


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labels that say nothing of the pictures: whoever knows them was told."""
    file = tmp_path_factory.mktemp("membership") / "d.npz"
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (500, SIDE, SIDE)).astype(np.uint8), np.arange(500) % 4
    np.savez(file, x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    return load_data(DataSpec(npz=str(file), validation=40, calibration=40, normalize=CENTRED), 0)


def subject(data, folder, model):
    export_onnx(model.eval(), (torch.zeros(2, 1, SIDE, SIDE),), folder / "model.onnx")
    return Subject(folder / "model.onnx", AdaptedModel.load(folder / "model.onnx"), data, lambda: model)


STUDY = Membership(fpr=0.05, shadows=6, epochs=25, fit=FIT)


def test_what_was_learnt_by_heart_is_found_and_what_was_not_is_not(data, tmp_path):
    torch.manual_seed(7)
    taught = network()
    fit(taught, data.train, epochs=25, settings=FIT)
    found = STUDY.measure(subject(data, tmp_path, taught))["membership"]
    assert found.low > 0.4
    assert (found.samples, found.higher_is_better) == (420, False)
    assert found.interval == "exact, of the threshold too"
    untaught = STUDY.measure(subject(data, tmp_path, network()))["membership"]
    assert untaught.value < 0.2


def test_what_is_served_is_attacked_not_the_network_behind_it(data, tmp_path):
    torch.manual_seed(7)
    taught = network()
    fit(taught, data.train, epochs=25, settings=FIT)
    seen = subject(data, tmp_path, network())
    served = Subject(seen.path, seen.model, data, lambda: taught)
    assert STUDY.measure(served)["membership"].value < 0.2


def test_too_few_are_refused_before_any_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr("adaptkit.training.fit.fit", lambda *_, **__: pytest.fail("trained"))
    seen = subject(data, tmp_path, network())
    with pytest.raises(DataError, match=r"200 samples are too few for .* 0\.01; give at least 1000"):
        Membership(fpr=0.01).measure(seen)
    with pytest.raises(DataError, match=r"100 samples are too few for .* 0\.05; give at least 200"):
        Membership(fpr=0.05, samples=100).measure(seen)


def test_weights_are_drawn_anew_and_the_network_stays():
    torch.manual_seed(0)
    given = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    given[1].running_mean += 5
    before = {name: value.clone() for name, value in given.state_dict().items()}
    drawn = fresh(given, 5)
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    changed = {name for name, value in drawn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias", "1.running_mean", "3.weight", "3.bias"}
    state = torch.get_rng_state()
    fresh(given, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_parameters_that_no_layer_draws_are_named():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.zeros(3)), nn.Linear(3, 2)

    with pytest.raises(ModelError, match="Token cannot be trained anew: no layer draws token by itself; give the"):
        fresh(Token(), 0)
