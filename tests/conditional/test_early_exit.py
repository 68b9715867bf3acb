"""Early exits from training to files, on real digits."""

import copy
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import nn

from adaptkit.conditional import calibration
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.exit_network import ExitNetwork
from adaptkit.errors import DataError, ModelError, TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.quantization import StaticQuantization
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings

FIT = FitSettings(learning_rate=0.05)
SETTINGS = {"exits": ("2", "5"), "epochs": 4, "head_width": 8, "fit": FIT, "max_accuracy_drop": 0.04}


def block(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(*block(1, 16), *block(16, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 64, 10))


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    images = torch.from_numpy(x[order].reshape(-1, 1, 8, 8) / 16).float()
    labels = torch.from_numpy(y[order])
    edges = [(0, 700), (700, 850), (850, 1450), (1450, 1797)]
    return [(images[a:b], labels[a:b]) for a, b in edges]


@pytest.fixture(scope="module")
def original(digits):
    model = classifier()
    fit(model, digits[0], epochs=6, settings=FIT)
    return model.eval()


@pytest.fixture
def context(digits, original):
    train, held, validation, _ = digits
    return Context(
        example_inputs=(train[0][:2],), train=train, calibration=held, validation=validation, teacher=original
    )


@pytest.fixture(scope="module", params=["float", "int8"])
def trained(request, digits, original):
    """The settings, the network, and a context; in integers, too."""
    train, held, validation, _ = digits
    context = Context(
        example_inputs=(train[0][:2],), train=train, calibration=held, validation=validation, teacher=original
    )
    quantize = StaticQuantization(calibration=64, rounding="nearest") if request.param == "int8" else None
    technique = EarlyExit(**SETTINGS, quantize=quantize)
    return technique, technique.train(copy.deepcopy(original), context), context


@pytest.fixture
def steady(monkeypatch):
    """Times that no busy machine changes: an exit costs a tenth of what comes before it."""

    def seconds(stages, x, threads=1, repeats=100):
        del x, threads, repeats
        return np.array([1.1 if "score" in str(stage.graph.output) else 1.0 for stage in stages])

    monkeypatch.setattr(calibration, "stage_seconds", seconds)


def test_samples_leave_and_both_artifacts_say_the_same(trained, original, digits, steady, tmp_path):
    technique, network, context = trained
    exits = technique.calibrate(network, original, context)
    assert exits.outcome.bound <= 0.04
    assert sum(exits.outcome.shares[:-1]) > 0.3
    assert exits.outcome.seconds < 3
    exits.write(tmp_path, Packaging(labels=tuple("0123456789")))
    replace(exits, single_file=True).write(tmp_path, Packaging())
    staged, single = AdaptedModel.load(tmp_path), ort.InferenceSession(tmp_path / "model.onnx")
    assert staged.labels == tuple("0123456789")
    assert staged.paths == exits.paths
    x, y = (tensor.numpy() for tensor in digits[3])
    result = staged(x)
    for image, logits, path in zip(x[:100], result.logits, result.path, strict=False):
        one, exit_ = single.run(None, {single.get_inputs()[0].name: image[None]})
        assert int(exit_[0]) == path
        np.testing.assert_allclose(one[0], logits, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        whole = (original(digits[3][0]).argmax(1) == digits[3][1]).float().mean()
    assert (result.logits.argmax(1) == y).mean() >= float(whole) - 0.04
    assert np.bincount(result.path, minlength=len(exits.points) + 1)[:-1].sum() > 0.3 * len(y)


def test_the_stages_compute_what_the_network_computes(trained, original, digits, steady):
    technique, network, context = trained
    exits = technique.calibrate(network, original, context)
    assert isinstance(network, QuantizedModel if technique.quantize else ExitNetwork)
    inner = network.model if isinstance(network, QuantizedModel) else network
    crossing = digits[3][0][:20]
    with torch.no_grad():
        final, *early = network.eval()(crossing)
    wanted = [early[inner.points.index(point)] for point in exits.points] + [final]
    crossing = crossing.numpy()
    for stage, named, answer in zip(exits.stages, exits.names, wanted, strict=True):
        session = ort.InferenceSession(stage.SerializeToString())
        outputs = [value.name for value in session.get_outputs()]
        given = dict(zip(outputs, session.run(None, {session.get_inputs()[0].name: crossing}), strict=True))
        spread = float(answer.std())
        assert np.abs(given[named.logits] - answer.numpy()).max() < (0.2 if technique.quantize else 1e-3) * spread
        crossing = given[outputs[0]]


def test_an_exit_that_costs_more_than_it_saves_is_dropped_and_named(trained, original, monkeypatch):
    technique, network, context = trained

    def seconds(stages, x, threads=1, repeats=100):
        del x, threads, repeats
        dear = [any("heads.0" in node.name or "heads.0" in str(node.input) for node in s.graph.node) for s in stages]
        scored = ["score" in str(stage.graph.output) for stage in stages]
        return np.array([1.0 + (5.0 if d and s else 0.1 * s) for d, s in zip(dear, scored, strict=True)])

    monkeypatch.setattr(calibration, "stage_seconds", seconds)
    notes: list[str] = []
    exits = technique.calibrate(network, original, context.replace(notes=notes))
    assert exits.points == ("5",)
    assert len(exits.stages) == 2
    assert any("cost more time than they save: exits behind 2" in note for note in notes)
    assert any(f"{100 * exits.outcome.shares[0]:.1f} % behind 5" in note for note in notes)


def test_heads_alone_leave_the_network_as_it_was(original, context):
    model = copy.deepcopy(original)
    network = EarlyExit(**{**SETTINGS, "training": "heads", "epochs": 1}).train(model, context)
    for name, value in original.state_dict().items():
        assert torch.equal(network.trunk.state_dict()[name], value), name


def test_points_are_found_by_time(original, context):
    network = EarlyExit(**{**SETTINGS, "exits": 2, "epochs": 0.2}).train(copy.deepcopy(original), context)
    assert len(network.points) == 2
    assert list(network.points) == sorted(network.points)


@pytest.mark.parametrize(
    ("settings", "missing", "error", "message"),
    [
        ({}, "train", DataError, "needs training data"),
        ({"exits": ("2", "10", "x")}, None, ModelError, r"cannot be left behind 10, x; it can behind 0, 1, 2"),
    ],
)
def test_what_it_cannot_start_from(original, context, settings, missing, error, message):
    given = context.replace(**{missing: None}) if missing else context
    with pytest.raises(error, match=message):
        EarlyExit(**{**SETTINGS, **settings}).train(copy.deepcopy(original), given)


def test_a_quantized_model_trains_in_float_and_is_quantized_again(original, context):
    integers = StaticQuantization(calibration=64, rounding="nearest")
    quantized = integers.apply(copy.deepcopy(original), context)
    with pytest.raises(ModelError, match="say with quantize: how the stages are to become integers again"):
        EarlyExit(**SETTINGS).train(quantized, context)
    again = EarlyExit(**{**SETTINGS, "epochs": 0.5}, quantize=integers).train(quantized, context)
    assert isinstance(again, QuantizedModel)


def test_a_model_that_is_one_layer_cannot_be_left(context):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ModelError, match="cannot be left early"):
        EarlyExit(exits=1, epochs=1).train(model, context.replace(teacher=None))


def test_calibration_refuses_what_it_did_not_train_and_no_data(original, context):
    with pytest.raises(ModelError, match="calibrates what its train"):
        EarlyExit(**SETTINGS).calibrate(original, original, context)
    with pytest.raises(DataError, match="needs validation data"):
        EarlyExit(**SETTINGS).calibrate(original, original, context.replace(validation=None))


def test_a_limit_below_what_the_samples_can_show_is_refused(trained, original, steady):
    technique, network, context = trained
    strict = technique.model_copy(update={"max_accuracy_drop": 0.0001})
    with pytest.raises(TargetError, match=r"at most 0\.01 points with 95 % confidence: on 420 validation samples"):
        strict.calibrate(network, original, context)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exits": 0}, "greater than or equal to 1"),
        ({"max_accuracy_drop": 0}, "greater than 0"),
        ({"confidence": 1}, "less than 1"),
        ({"rule": "guess"}, "'confidence', 'margin' or 'entropy'|Input should be"),
        ({"threshold": 0.9}, "threshold"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(ValidationError, match=message):
        EarlyExit(**settings)


def test_heads_start_from_the_seed_and_from_nothing_else(original, context):
    networks = []
    for before in (1, 2):
        torch.manual_seed(before)
        technique = EarlyExit(**SETTINGS | {"epochs": 0.01})
        networks.append(technique.train(copy.deepcopy(original), context).state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
