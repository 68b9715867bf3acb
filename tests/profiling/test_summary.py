"""All figures of a model, and the table of layers."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.profiling import fixed, named
from adaptkit.profiling.graph import NodeCost
from adaptkit.profiling.layer_table import layer_table, why
from adaptkit.profiling.named import Sample
from adaptkit.profiling.summary import figures, profile_file
from adaptkit.quantization.static import StaticQuantization
from adaptkit.report.schema import Layer
from adaptkit.specs import ProfileSpec
from adaptkit.technique import Context

_QUICK = ProfileSpec(warmup=1, repeats=3, seconds=1)
_EXAMPLE = (torch.zeros(2, 3, 8, 8),)


def net(width=8, second=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, second, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 64, 10),
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder with the two files that matter."""
    path = tmp_path_factory.mktemp("run")
    export_onnx(net(), _EXAMPLE, path / "baseline.onnx")
    export_onnx(net(4), _EXAMPLE, path / "model.onnx")
    return path


def test_figures_come_from_the_file(folder):
    path = folder / "model.onnx"
    found = figures(net(4), _EXAMPLE, path, folder / "baseline.onnx", _QUICK)
    assert found.parameters == sum(p.numel() for p in net(4).parameters())
    assert found.macs == 64 * 9 * (3 * 4 + 4 * 16) + 16 * 64 * 10
    assert found.bytes == path.stat().st_size
    assert list(found.latency_ms) == list(found.speedup) == ["t1_b1"]
    assert found.peak_memory_bytes > 10 * found.bytes
    assert found.energy_mj > 0
    assert found.energy_method in ("rapl", "nvml", "estimate")


def test_baseline_is_its_own_measure(folder):
    path = folder / "baseline.onnx"
    ratio = figures(net(), _EXAMPLE, path, path, _QUICK).speedup["t1_b1"]
    assert (ratio.low, ratio.median, ratio.high) == (1, 1, 1)


def test_profile_of_a_run_folder_and_of_a_file(folder):
    macs = 64 * 9 * (3 * 4 + 4 * 16) + 16 * 64 * 10
    in_folder, alone = profile_file(str(folder), _QUICK), profile_file(str(folder / "model.onnx"), _QUICK)
    assert in_folder.macs == alone.macs == macs
    assert alone.speedup["t1_b1"].high == 1
    folded = sum(p.numel() for p in net(4).parameters()) - 2 * 4
    assert alone.parameters == folded


def test_profile_of_a_zoo_model():
    found = profile_file("zoo:resnet20_cifar", _QUICK)
    assert (found.parameters, found.macs) == (269_722, 40_551_040)


@pytest.mark.slow
def test_profile_of_a_torchvision_model():
    found = profile_file("torchvision:mobilenet_v2", _QUICK)
    assert (found.parameters, found.macs) == (3_504_872, 300_774_272)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.onnx", r"nowhere\.onnx is not there: give an ONNX file, a run folder, torchvision:NAME, zoo:NAME or"),
        ("torchvision:resnet19", "no classification model 'resnet19'; did you mean resnet1"),
        ("zoo:resnet21_cifar", "the zoo has no model 'resnet21_cifar'; did you mean resnet"),
        ("python:tests.profiling.test_summary:net", "does not say what it takes: give the shape of a sample"),
        ("python:no_such_module:build", "cannot import no_such_module"),
        ("elsewhere:resnet18", "elsewhere:resnet18 is not there"),
    ],
)
def test_names_that_are_not_there(name, message):
    with pytest.raises(ModelError, match=message):
        profile_file(name, _QUICK)


class Pair(nn.Module):
    """Takes an image and numbers of words."""

    def __init__(self):
        super().__init__()
        self.image, self.words = nn.Linear(48, 5), nn.Embedding(9, 5)

    def forward(self, x, words):
        return self.image(x.flatten(1)) + self.words(words).mean(1)


def test_profile_of_a_function_and_its_layers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from tests.profiling.test_summary import Pair\n\ndef build():\n    return Pair()\n"
    )
    samples = [Sample((3, 4, 4)), Sample((7,), "int64")]
    found = profile_file("python:mine:build", _QUICK, layers=True, samples=samples)
    assert (found.model, found.parameters, found.macs) == ("python:mine:build", 48 * 5 + 5 + 45, 240)
    assert found.peak_activation_bytes > 4 * 48 + 8 * 7
    (network,) = found.networks
    assert {layer.name: layer.parameters for layer in network.layers if layer.parameters} == {"image": 245, "words": 45}
    assert found.machine.threads == 1


def test_a_model_too_large_for_one_file_has_its_weights_beside_it(monkeypatch):
    monkeypatch.setattr(named, "_ONE_FILE", 0)
    found = profile_file("zoo:lenet5_digits", _QUICK, layers=True)
    assert found.bytes > 4 * found.parameters
    assert sum(layer.macs for layer in found.networks[0].layers) == found.macs > 0


@pytest.mark.parametrize("one_file", [0, fixed._ONE_FILE])
def test_shapes_that_a_file_leaves_open(tmp_path, monkeypatch, one_file):
    monkeypatch.setattr(fixed, "_ONE_FILE", one_file)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    weight = numpy_helper.from_array(np.ones((200, 3, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")], [weight])
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, ir_version=10), path)
    before = path.read_bytes()
    with pytest.raises(ModelError, match=r"free dimensions besides the batch: height, width. Give the shape"):
        profile_file(str(path), _QUICK)
    found = profile_file(str(path), _QUICK, samples=[Sample((3, 5, 7))])
    assert (found.macs, found.bytes) == (5 * 7 * 200 * 3, len(before))
    assert path.read_bytes() == before
    for shape, message in (
        ((3, 5), r"a sample of input x is 3x\?x\?; 3x5 was given"),
        ((4, 5, 7), r"a sample of input x is 3x\?x\?; 4x5x7 was given"),
    ):
        with pytest.raises(ModelError, match=message):
            profile_file(str(path), _QUICK, samples=[Sample(shape)])
    with pytest.raises(ModelError, match=r"takes 1 inputs \(x\); 2 shapes were given"):
        profile_file(str(path), _QUICK, samples=[Sample((3, 5, 7))] * 2)


def test_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model\.onnx"):
        profile_file(str(tmp_path), _QUICK)


def test_layers_before_and_after(folder):
    table = layer_table(net(), net(4), _EXAMPLE, folder / "baseline.onnx", folder / "model.onnx")
    assert [(layer.name, layer.kind) for layer in table.layers] == [("0", "Conv2d"), ("3", "Conv2d"), ("6", "Linear")]
    first = table.layers[0]
    assert (first.shape_before, first.shape_after) == ([8, 3, 3, 3], [4, 3, 3, 3])
    assert (first.parameters_before, first.parameters_after) == (224, 112)
    assert (first.macs_before, first.macs_after) == (64 * 9 * 3 * 8, 64 * 9 * 3 * 4)
    assert all(layer.latency_us_before > 0 and layer.latency_us_after > 0 for layer in table.layers)
    assert table.uncounted_ops == ()


def test_removed_and_split_layers():
    model = net()
    model[3] = nn.Sequential(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 16, 3, padding=1))
    model[0] = nn.Conv2d(3, 8, 1, bias=False)
    table = {layer.name: layer for layer in layer_table(net(), model, _EXAMPLE).layers}
    assert table["3"].macs_after == 64 * (8 * 2 + 2 * 16 * 9)
    assert table["3"].parameters_after == 8 * 2 + 2 + 2 * 16 * 9 + 16
    assert table["0"].parameters_after == 24
    model[0] = nn.Identity()
    gone = layer_table(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Identity(), nn.Linear(4, 2)),
        (torch.zeros(1, 4),),
    )
    assert gone.layers[0].macs_after is None
    assert gone.layers[0].shape_after is None
    assert gone.layers[0].note == "removed"


def test_layers_of_a_quantized_model(tmp_path):
    model, x = net(), torch.randn(32, 3, 8, 8)
    context = Context(example_inputs=_EXAMPLE, calibration=(x, torch.zeros(32, dtype=torch.int64)))
    quantized = StaticQuantization().apply(copy.deepcopy(model), context)
    export_onnx(model, _EXAMPLE, tmp_path / "float.onnx")
    export_onnx(quantized, _EXAMPLE, tmp_path / "int.onnx")
    table = layer_table(model, quantized, _EXAMPLE, tmp_path / "float.onnx", tmp_path / "int.onnx")
    assert [layer.name for layer in table.layers] == ["0", "3", "6"]
    assert all(layer.parameters_after == layer.parameters_before for layer in table.layers)
    assert all(layer.latency_us_after is not None for layer in table.layers)
    assert not any(layer.note == "float between 8-bit layers" for layer in table.layers)


def layer(macs, microseconds):
    return Layer(
        name="a", kind="Conv2d", shape_before=[], shape_after=[], parameters_before=1, parameters_after=1,
        macs_before=macs[0], macs_after=macs[1], latency_us_before=microseconds[0], latency_us_after=microseconds[1],
    )  # fmt: skip


def cost(integer=False, depthwise=False, channels=(16, 16)):
    return NodeCost("a", "a", 1, integer, depthwise, channels, 1)


@pytest.mark.parametrize(
    ("macs", "microseconds", "cost", "quantized", "note"),
    [
        ((100, 50), (200, 100), cost(), False, ""),
        ((100, 50), (200, 190), cost(channels=(16, 13)), False, "13 channels, kernels work on blocks of 16"),
        ((100, 50), (200, 190), cost(), False, "2.0 × fewer MACs, 1.1 × faster: bound by memory, not by products"),
        ((100, 50), (200, 190), cost(depthwise=True), False, "depthwise, bound by memory"),
        ((100, 50), (20, 19), cost(), False, "so small that starting it dominates"),
        ((100, 100), (200, 90), cost(integer=True), True, "8-bit products"),
        ((100, 100), (200, 200), cost(), True, "float between 8-bit layers"),
        ((100, 50), (None, None), cost(), False, ""),
    ],
)
def test_why_time_does_not_follow_macs(macs, microseconds, cost, quantized, note):
    found = why(layer(macs, microseconds), cost, quantized)
    assert found.endswith(note)
    assert bool(found) == bool(note)
