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
from adaptkit.quantization.calibrate import batches
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


class Difference(nn.Module):
    """Two inputs of different kinds that go through an encoder together and are parted again."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.inner, self.head = nn.Embedding(50, 32), nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x, tokens):
        joint = torch.relu(self.inner(torch.cat([x, self.words(tokens).mean(1)])))
        one, two = self.head(joint).chunk(2)
        return one - two


@pytest.mark.parametrize(
    "technique",
    [
        StaticQuantization(calibration=100),
        StaticQuantization(calibration=100, rounding="learned", equalize=True),
        PartialSumQuantization(calibration=100, accumulator_bits=24),
    ],
    ids=["static", "learned", "partial sums"],
)
def test_several_inputs_are_calibrated_together(technique, tmp_path):
    generator = torch.Generator().manual_seed(0)
    x, tokens = torch.randn(100, 32, generator=generator), torch.randint(0, 50, (100, 7), generator=generator)
    data = ((x, tokens), torch.zeros(100))
    model = Difference().eval()
    exact = model(x, tokens).detach().numpy()
    quantized = technique.apply(model, Context(example_inputs=(x[:1], tokens[:1]), calibration=data))
    simulated = quantized(x, tokens).detach().numpy()
    assert np.abs(simulated - exact).std() < 0.03 * exact.std()
    session = ort.InferenceSession(final_onnx(quantized, (x[:1], tokens[:1])).SerializeToString())
    (found,) = session.run(None, {"input": x.numpy(), "input_1": tokens.numpy()})
    assert np.abs(found - simulated).max() < 0.05 * exact.std()
    save(quantized, Difference(), tmp_path)
    assert np.array_equal(load(Difference, tmp_path)(x, tokens).detach().numpy(), simulated)


def test_calibration_data_comes_in_many_forms():
    x, y = torch.randn(100, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(100)
    z = x.flip(0)
    forms = [((x, z), y), [((x, z), y)], [[[x[:50], z[:50]], y[:50]], [[x[50:], z[50:]]]]]
    found = [list(batches(form, 80)) for form in forms]
    for inputs in found:
        whole = [torch.cat(parts) for parts in zip(*inputs, strict=True)]
        assert torch.equal(whole[0], x[:80])
        assert torch.equal(whole[1], z[:80])


@pytest.mark.parametrize("kind", [QuantizationAwareTraining, MixedPrecision])
def test_several_inputs_cannot_be_trained_on(kind, x):
    with pytest.raises(ModelError, match=r"Sum takes 2 inputs, and training data holds one: use quantize\.static"):
        applied(few(kind), Sum(), (x[:1], x[:1]), ((x, x), torch.zeros(16, dtype=torch.long)))


@pytest.mark.parametrize("kind", [StaticQuantization, PartialSumQuantization])
def test_calibration_data_has_as_many_inputs_as_the_model(kind, x):
    y = torch.zeros(16)
    with pytest.raises(DataError, match=r"takes 2 inputs, and a batch of the calibration data holds 1: give \(\(x1"):
        applied(few(kind), Sum(), (x[:1], x[:1]), (x, y))
    with pytest.raises(DataError, match=r"takes 1 inputs, and a batch of the calibration data holds 2"):
        applied(few(kind), Returns(torch.relu), (x[:1],), ((x, x), y))
    with pytest.raises(DataError, match=r"of shape \(16, 32\), float32 and \(16, 31\), float32: "):
        applied(few(kind), Sum(), (x[:1], x[:1]), ((x, x[:, :31]), y))


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
        ((INPUTS, INPUTS, TARGETS), "several inputs; got a tuple of Tensor, Tensor, Tensor"),
        ([(INPUTS, INPUTS, TARGETS)], "several inputs; got a tuple of Tensor, Tensor, Tensor"),
        ([([INPUTS, INPUTS[:3]], TARGETS)], "several inputs; got a tuple of list, Tensor"),
        ([([], TARGETS)], "several inputs; got a tuple of list, Tensor"),
        ([()], "several inputs; got a tuple of"),
        ([{"x": INPUTS}], "several inputs; got a dict"),
        (
            (torch.zeros(4, 31), TARGETS),
            r"does not run on .* of shape \(4, 31\), float32: mat1 and mat2",
        ),
        ((INPUTS.long(), TARGETS), r"shape \(4, 32\), int64: mat1 and mat2"),
    ],
    ids=[
        "none",
        "number",
        "tensor",
        "iterator",
        "triple",
        "triples",
        "unequal",
        "nothing",
        "empty",
        "dictionary",
        "shape",
        "type",
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence(data, message, x):
    with pytest.raises(DataError, match=message) as caught:
        applied(few(StaticQuantization), Returns(torch.relu), (x[:1],), data)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_not_finite_takes_one_sentence(x):
    with pytest.raises(DataError, match="activation x is not finite") as caught:
        applied(few(StaticQuantization), Returns(torch.relu), (x[:1],), (x * torch.inf, TARGETS))
    assert "\n" not in str(caught.value)
