"""What goes into a model: token numbers, several tensors, and what cannot be quantized."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import nn

from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import final_onnx
from adaptkit.loading.saved import load, save
from adaptkit.quantization import (
    DynamicQuantization,
    MixedPrecision,
    PartialSumQuantization,
    QuantizationAwareTraining,
    StaticQuantization,
    WeightOnlyQuantization,
)
from adaptkit.technique import Context
from tests.quantization.nets import exported, run

SAMPLES = 64


class Words(nn.Module):
    """Token numbers to classes: an embedding, two linear layers and a mean over the words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.inner, self.head = nn.Embedding(50, 32), nn.Linear(32, 48), nn.Linear(48, 4)

    def forward(self, tokens):
        return self.head(torch.relu(self.inner(self.words(tokens))).mean(1))


@pytest.fixture
def tokens():
    return torch.randint(0, 50, (SAMPLES, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "technique",
    [
        StaticQuantization(calibration=SAMPLES),
        DynamicQuantization(),
        WeightOnlyQuantization(),
        QuantizationAwareTraining(calibration=SAMPLES, epochs=1, fit={"learning_rate": 0.01}),
    ],
    ids=lambda technique: technique.name,
)
def test_token_numbers_reach_the_file_and_the_saved_model(technique, tokens, tmp_path):
    model, targets = Words().eval(), torch.zeros(SAMPLES, dtype=torch.long)
    exact = model(tokens).detach().numpy()
    data = (tokens, targets)
    quantized = technique.apply(model, Context(example_inputs=(tokens[:1],), calibration=data, train=data))
    quantized.eval()
    simulated = quantized(tokens).detach()
    proto = exported(quantized, tokens)
    assert np.abs(run(proto, tokens) - simulated.numpy()).max() < 0.05 * exact.std()
    floats = [list(t.dims) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    assert floats == [[50, 32]]
    save(quantized, Words(), tmp_path)
    assert torch.equal(load(Words, tmp_path)(tokens), simulated)


class Sum(nn.Module):
    """Two inputs through one layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(32, 48)

    def forward(self, x, y):
        return self.inner(x) + self.inner(y)


class Returns(nn.Module):
    """A linear layer, and what a function makes of it."""

    def __init__(self, last):
        super().__init__()
        self.inner, self.last = nn.Linear(32, 48), last

    def forward(self, x):
        return self.last(self.inner(x))


@pytest.fixture
def x():
    return torch.randn(16, 32, generator=torch.Generator().manual_seed(0))


def applied(technique, model, example_inputs, data):
    context = Context(example_inputs=example_inputs, calibration=data, train=data)
    return technique.apply(model.eval(), context)


def few(kind, **settings):
    return kind(calibration=16, rounding="nearest", **settings)


@pytest.mark.parametrize("technique", [DynamicQuantization(), WeightOnlyQuantization()], ids=lambda t: t.name)
def test_what_needs_no_data_takes_several_inputs(technique, x, tmp_path):
    other = x.flip(0)
    quantized = applied(technique, Sum(), (x[:1], other[:1]), None)
    simulated = quantized(x, other).detach()
    session = ort.InferenceSession(final_onnx(quantized, (x[:1], other[:1])).SerializeToString())
    (found,) = session.run(None, {"input": x.numpy(), "input_1": other.numpy()})
    np.testing.assert_allclose(found, simulated, atol=1e-2)
    save(quantized, Sum(), tmp_path)
    assert torch.equal(load(Sum, tmp_path)(x, other), simulated)


@pytest.mark.parametrize(
    "kind", [StaticQuantization, QuantizationAwareTraining, MixedPrecision, PartialSumQuantization]
)
def test_several_inputs_cannot_be_calibrated(kind, x):
    with pytest.raises(ModelError, match=r"Sum takes 2 inputs.*quantize\.dynamic or quantize\.weight_only"):
        applied(few(kind), Sum(), (x[:1], x[:1]), (x, torch.zeros(16, dtype=torch.long)))


@pytest.mark.parametrize("technique", [StaticQuantization(), DynamicQuantization(), WeightOnlyQuantization()])
@pytest.mark.parametrize(
    ("example_inputs", "message"),
    [
        (([torch.zeros(1, 32)],), "one of example_inputs is a list: wrap the model"),
        ((torch.tensor(1.0),), "one of example_inputs is a tensor without dimensions"),
        ((), "cannot be captured: missing a required argument"),
    ],
    ids=["list", "number", "none"],
)
def test_inputs_that_are_no_tensors_are_refused(technique, example_inputs, message, x):
    with pytest.raises(ModelError, match=message):
        applied(technique, Returns(torch.relu), example_inputs, (x, x))


@pytest.mark.parametrize("technique", [few(StaticQuantization), DynamicQuantization()], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "last",
    [lambda y: None, lambda y: (y, 3), lambda y: {"scores": y, "name": "cat"}, lambda y: y.sum().item()],
    ids=["none", "number", "text", "item"],
)
def test_outputs_that_are_no_tensors_are_refused(technique, last, x):
    with pytest.raises(ModelError, match="Returns returns something that is no tensor: wrap"):
        applied(technique, Returns(last), (x[:1],), (x, torch.zeros(16)))


def test_none_among_the_outputs_is_kept(x):
    quantized = applied(few(StaticQuantization), Returns(lambda y: (y, None)), (x[:1],), (x, torch.zeros(16)))
    scores, nothing = quantized(x)
    assert nothing is None
    np.testing.assert_allclose(run(exported(quantized, x), x), scores.detach(), atol=1e-2)


@pytest.mark.parametrize("kind", [QuantizationAwareTraining, MixedPrecision])
def test_an_output_without_classes_cannot_be_trained_against(kind, x):
    with pytest.raises(ModelError, match=r"N × classes.*shape \(\)"):
        applied(few(kind, epochs=1), Returns(torch.mean), (x[:1],), (x, torch.zeros(16, dtype=torch.long)))


INPUTS, TARGETS = torch.zeros(4, 32), torch.zeros(4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"no calibration data: give Context\(calibration=\(x, y\)\)"),
        (5, "a loader of such batches; got int"),
        (INPUTS, "a loader of such batches; got Tensor"),
        (iter([(INPUTS, TARGETS)]), "more than once"),
        ((INPUTS, INPUTS, TARGETS), "one input; got a tuple of Tensor, Tensor, Tensor"),
        ([(INPUTS, INPUTS, TARGETS)], "one input; got a tuple of Tensor, Tensor, Tensor"),
        ([([INPUTS], TARGETS)], "one input; got a tuple of list, Tensor"),
        ([{"x": INPUTS}], "one input; got a dict"),
        (
            (torch.zeros(4, 31), TARGETS),
            r"does not run on .* of shape \(4, 31\), float32: mat1 and mat2",
        ),
        ((INPUTS.long(), TARGETS), r"shape \(4, 32\), int64: mat1 and mat2"),
    ],
    ids=["none", "number", "tensor", "iterator", "triple", "triples", "lists", "dictionary", "shape", "type"],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence(data, message, x):
    with pytest.raises(DataError, match=message) as caught:
        applied(few(StaticQuantization), Returns(torch.relu), (x[:1],), data)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_not_finite_takes_one_sentence(x):
    with pytest.raises(DataError, match="activation x is not finite") as caught:
        applied(few(StaticQuantization), Returns(torch.relu), (x[:1],), (x * torch.inf, TARGETS))
    assert "\n" not in str(caught.value)
