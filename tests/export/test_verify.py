"""The certificate, on sound files and on files broken on purpose."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from adaptkit.errors import DataError, ExportMismatch
from adaptkit.export.cpu import has_vnni, saturation_notes
from adaptkit.export.onnx import export_onnx
from adaptkit.export.tensors import NOT_FINITE, first_jump, relative_error
from adaptkit.export.verify import certify, require
from adaptkit.metrics import measure
from adaptkit.quantization.static import StaticQuantization
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import ExportSpec
from adaptkit.technique import Context


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return self.relu(out + x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block1 = Block(8)
        self.block2 = Block(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.block2(self.block1(torch.relu(self.stem(x))))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Once:
    """Batches that refuse to be read twice."""

    def __init__(self, *batches):
        self.batches = batches
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        assert self.reads == 1
        return iter(self.batches)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, 3, 8, 8, generator=generator) * torch.linspace(0.2, 3, 48).view(-1, 1, 1, 1)
    return x, torch.arange(48) % 4


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def sound_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(model, (torch.zeros(2, 3, 8, 8),), path)
    return path


@pytest.fixture(scope="module")
def quantized(model, data, tmp_path_factory):
    example = (torch.zeros(2, 3, 8, 8),)
    simulated = StaticQuantization().apply(copy.deepcopy(model), Context(example_inputs=example, calibration=data))
    path = tmp_path_factory.mktemp("integer") / "model.onnx"
    export_onnx(simulated, example, path)
    return simulated, path


def check(model, path, data, metrics=(), **spec):
    x, y = data
    batches = Once((x[:20], y[:20]), (x[20:], y[20:]))
    certificate = certify(model, path, batches, spec=ExportSpec(**spec), example_inputs=(x[:2],), metrics=metrics)
    assert batches.reads == 1
    return certificate


def test_sound_file(model, sound_file, data):
    certificate = check(model, sound_file, data)
    require(certificate)
    x, y = data
    assert certificate.samples == 48
    assert certificate.accuracy_torch == certificate.accuracy_onnx == float((model(x).argmax(1) == y).float().mean())
    assert certificate.agreement == 1.0
    assert certificate.first_jump is None
    assert 0 < certificate.mean_error <= certificate.max_error < 1e-4
    assert {"stem", "block1.conv1", "block1.conv2", "block1.relu (call 2)", "head"} <= set(certificate.layer_errors)
    assert all(error < 1e-5 for error in certificate.layer_errors.values())


def damage(source, target, layer, change):
    """Change the constant weight of the node that belongs to a layer."""
    proto = onnx.load(source)
    node = next(n for n in proto.graph.node if n.name.startswith(layer) and n.op_type in ("Conv", "Gemm"))
    makers = {n.output[0]: n for n in proto.graph.node}
    name = makers[node.input[1]].input[0] if node.input[1] in makers else node.input[1]
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    onnx.save(proto, target)
    return target


def test_metrics_are_of_the_file_in_the_same_pass(model, sound_file, data, tmp_path):
    assert check(model, sound_file, data).metrics == {}
    broken = damage(sound_file, tmp_path / "broken.onnx", "head", lambda weight: weight[::-1].copy())
    found = check(model, broken, data, ("accuracy", "mcc"))
    x, y = data
    wanted = measure(["accuracy", "mcc"], AdaptedModel.load(broken).predict(x.numpy()), y.numpy())
    assert found.metrics == wanted
    assert found.metrics["accuracy"].value == found.accuracy_onnx != found.accuracy_torch


def test_metrics_of_what_is_no_number_are_none_and_the_certificate_tells(model, sound_file, data, tmp_path):
    broken = damage(sound_file, tmp_path / "broken.onnx", "head", lambda weight: weight * np.float32("nan"))
    found = check(model, broken, data, ("f1",))
    assert not found.passed
    assert found.metrics["f1"].value is None
    assert found.metrics["f1"].problem == (
        "outputs: 48 of 48 samples hold NaN or infinity, first at sample 0; leave them out or mend the model"
    )


@pytest.mark.parametrize("layer", ["stem", "block1.conv2", "block2.conv1", "head"])
def test_broken_weight_is_found(layer, model, sound_file, data, tmp_path):
    broken = damage(sound_file, tmp_path / "broken.onnx", layer, lambda weight: weight[::-1].copy())
    certificate = check(model, broken, data)
    assert not certificate.passed
    assert certificate.first_jump == layer
    with pytest.raises(ExportMismatch, match=rf"first at layer {layer} \(relative error"):
        require(certificate)


def test_small_error_is_held_against_the_tolerance(model, sound_file, data, tmp_path):
    broken = damage(sound_file, tmp_path / "broken.onnx", "block2.conv1", lambda weight: weight * np.float32(1.01))
    assert check(model, broken, data, tolerance=0.1).passed
    strict = check(model, broken, data, tolerance=1e-3)
    assert not strict.passed
    assert strict.first_jump == "block2.conv1"


def test_not_a_number_fails(model, sound_file, data, tmp_path):
    broken = damage(sound_file, tmp_path / "broken.onnx", "head", lambda weight: weight * np.float32("nan"))
    certificate = check(model, broken, data)
    assert not certificate.passed
    assert certificate.max_error == certificate.layer_errors["head"] == NOT_FINITE
    assert "NaN or infinity among the outputs" in certificate.notes


def test_quantized_file(quantized, data):
    certificate = check(*quantized, data, min_agreement=0.9)
    require(certificate)
    assert certificate.agreement >= 0.9
    assert certificate.first_jump is None
    assert 1e-4 < certificate.layer_errors["block1.conv2"] < 0.1
    assert certificate.notes[0].startswith("judged by top-1 agreement")
    assert "8-bit products" in certificate.notes[1]


def test_broken_integer_weight_is_found(quantized, data, tmp_path):
    simulated, path = quantized
    broken = damage(path, tmp_path / "broken.onnx", "block2.conv2", lambda weight: weight[::-1].copy())
    certificate = check(simulated, broken, data)
    assert not certificate.passed
    assert certificate.first_jump == "block2.conv2"


def test_file_that_normalizes_gets_pixels(model, data, tmp_path):
    path, spec = tmp_path / "model.onnx", {"normalize_in_graph": True}
    export_onnx(model, (data[0][:2],), path, spec=ExportSpec(**spec), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert check(model, path, data, **spec).passed


def test_mode_is_restored(model, sound_file, data):
    training = copy.deepcopy(model).train()
    check(training, sound_file, data)
    assert training.training
    assert training.block1.bn1.training
    assert not any(module._forward_hooks for module in training.modules())


def test_empty_test_split(model, sound_file):
    with pytest.raises(DataError, match="the test split is empty"):
        certify(model, sound_file, [], example_inputs=(torch.zeros(2, 3, 8, 8),))


def test_relative_error_against_a_hand_calculation():
    reference = np.array([3.0, 4.0])
    assert relative_error(reference * 1.1, reference) == pytest.approx(0.1)
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5
    assert relative_error(np.array([np.inf]), np.array([1.0])) == NOT_FINITE


def test_first_jump_is_far_above_all_layers_before():
    errors = {"a": 0.02, "b": 0.11, "c": 0.12, "d": 0.9}
    assert first_jump(errors, floor=0.1, factor=3) == "b"
    assert first_jump(errors, floor=0.1, factor=6) == "d"
    assert first_jump(errors, floor=0.1, factor=9) is None


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2", False), ("fpu avx512_vnni", True), ("avx_vnni sse", True), (None, None)]
)
def test_vnni_of_the_cpu(flags, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_vnni(cpuinfo) is expected


def test_note_on_saturation(quantized, monkeypatch, tmp_path):
    proto = onnx.load(quantized[1])
    monkeypatch.setattr("adaptkit.quantization.inspect.saturation_risk", lambda _proto: ["a", "b", "c", "d"])
    (note,) = saturation_notes(proto, tmp_path / "absent")
    assert "in 4 layers: a; b; c; and 1 more" in note
