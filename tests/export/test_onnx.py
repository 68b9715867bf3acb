"""Writing ONNX files."""

import contextlib
import errno
import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision
from onnxscript.values import TracedOnnxFunction
from torch import nn

from adaptkit.errors import ModelError, RunFolderError
from adaptkit.export import onnx as onnx_module
from adaptkit.export.files import file_bytes
from adaptkit.export.metadata import Normalize, read_metadata
from adaptkit.export.onnx import export_onnx, to_onnx
from adaptkit.specs import ExportSpec


class Net(nn.Module):
    """Convolution, normalization, a functional ReLU, a module called twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        x = self.act(self.block(x) - 0.1)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    model = Net()
    model.bn.running_mean.uniform_(-0.2, 0.2)
    return model.eval()


def run(path, x):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})[0]


def test_file_computes_the_model_at_every_batch_size(net, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(net, (torch.zeros(1, 3, 6, 6),), path)
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 6, 6)
        np.testing.assert_allclose(run(path, x), net(x).detach().numpy(), atol=1e-6)
    batch_dims = [value.type.tensor_type.shape.dim[0].dim_param for value in _values(path)]
    assert batch_dims == ["batch", "batch"]


def _values(path):
    graph = onnx.load(path).graph
    return [*graph.input, *graph.output]


def test_nodes_are_named_after_modules(net):
    names = [node.name for node in to_onnx(net, (torch.zeros(2, 3, 6, 6),)).graph.node]
    assert names[:4] == ["conv+bn/Conv", "act/Relu", "block.0/Conv", "block.1/Relu"]
    assert "act/Relu_1" in names
    assert names[-1] == "head/Gemm"
    assert len(set(names)) == len(names)


def test_notes_in_the_file(net, tmp_path):
    path = tmp_path / "model.onnx"
    labels, sha = ("cat", "Straße", "c", "d", "e"), "ab" * 32
    export_onnx(
        net, (torch.zeros(1, 3, 6, 6),), path, labels=labels, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), recipe_sha256=sha
    )
    notes = read_metadata({entry.key: entry.value for entry in onnx.load(path).metadata_props})
    assert notes.labels == labels
    assert notes.normalize == Normalize((0.1, 0.2, 0.3), (1, 2, 3), in_graph=False)
    assert notes.recipe_sha256 == sha
    assert notes.version


def test_normalization_inside_the_graph(net, tmp_path):
    path, mean, std = tmp_path / "model.onnx", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    spec = ExportSpec(normalize_in_graph=True)
    export_onnx(net, (torch.zeros(1, 3, 6, 6),), path, spec=spec, mean=mean, std=std)
    pixels = torch.rand(3, 3, 6, 6)
    normalized = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    np.testing.assert_allclose(run(path, pixels), net(normalized).detach().numpy(), atol=1e-6)


def test_normalization_of_another_number_of_channels(net, tmp_path):
    spec = ExportSpec(normalize_in_graph=True)
    with pytest.raises(ModelError, match=r"1 channels, but the model takes .*'batch', 3, 6, 6"):
        export_onnx(net, (torch.zeros(1, 3, 6, 6),), tmp_path / "m.onnx", spec=spec, mean=(0.5,), std=(0.5,))


def test_weights_beside_the_file(tmp_path):
    model, path = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), tmp_path / "model.onnx"
    inputs, spec = (torch.randn(2, 64),), ExportSpec(single_file=False)
    export_onnx(model, inputs, path, spec=spec)
    (first,) = tmp_path.glob("*.data")
    np.testing.assert_allclose(run(path, inputs[0]), model(*inputs).detach().numpy(), atol=1e-5)
    assert path.stat().st_size < 64 * 64 * 4 < file_bytes(path) == path.stat().st_size + first.stat().st_size
    with torch.no_grad():
        model[0].weight.add_(1)
    export_onnx(model, inputs, path, spec=spec)
    (second,) = tmp_path.glob("*.data")
    assert second != first
    np.testing.assert_allclose(run(path, inputs[0]), model(*inputs).detach().numpy(), atol=1e-4)


_SCRIPT = """
import sys, pathlib, torch
from torch import nn
from adaptkit.export.onnx import export_onnx
torch.manual_seed(3)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
export_onnx(model, (torch.zeros(1, 1, 4, 4),), pathlib.Path(sys.argv[1]), labels=("a", "b"), mean=(0.5,), std=(0.5,))
"""


@pytest.mark.slow
def test_same_bytes_in_two_processes(tmp_path):
    sums = []
    for index, hash_seed in enumerate(("1", "2")):
        path = tmp_path / str(index) / "model.onnx"
        path.parent.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", _SCRIPT, str(path)], check=True, env=environment, cwd=path.parent)
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_operators_are_read_once_and_nothing_changes_by_it(net, monkeypatch):
    x = (torch.zeros(2, 3, 6, 6),)
    with monkeypatch.context() as patched:
        patched.setattr(onnx_module, "operators_read_once", contextlib.nullcontext)
        expected = to_onnx(net, x).SerializeToString(deterministic=True)
    to_onnx(net, x)
    monkeypatch.setattr(TracedOnnxFunction, "function_ir", property(lambda _: pytest.fail("read again")))
    assert to_onnx(net, x).SerializeToString(deterministic=True) == expected


def test_no_paths_of_this_machine_in_the_file(net):
    content = to_onnx(net, (torch.zeros(2, 3, 6, 6),)).SerializeToString()
    assert b".py" not in content
    assert os.fsencode(os.getcwd()) not in content


def test_disk_full_leaves_the_old_file(net, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"the disk is full: .*model\.onnx was not written"):
        export_onnx(net, (torch.zeros(1, 3, 6, 6),), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_modes_are_restored(net):
    net.train()
    net.bn.eval()
    to_onnx(net, (torch.zeros(2, 3, 6, 6),))
    assert net.training
    assert not net.bn.training


class Doubled(nn.Module):
    """Exports another module, and finishes the graph itself."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x):
        return 2 * self.inner(x)

    def export_model(self):
        return self.inner

    def finish_onnx(self, proto, held):
        proto.graph.node[-1].output[0] = "half"
        proto.graph.node.append(onnx.helper.make_node("Add", ["half", "half"], ["logits"], name="double/Add"))
        return proto


def test_a_model_that_exports_itself(tmp_path):
    model, path, x = Doubled(), tmp_path / "model.onnx", torch.randn(4, 3)
    export_onnx(model, (x,), path)
    np.testing.assert_allclose(run(path, x), model(x).detach().numpy(), atol=1e-6)


class TwoOutputs(nn.Module):
    def forward(self, x):
        return {"main": x + 1, "aux": x.sum(1)}


def test_several_outputs(tmp_path):
    export_onnx(TwoOutputs(), (torch.zeros(2, 3),), tmp_path / "model.onnx")
    assert [value.name for value in onnx.load(tmp_path / "model.onnx").graph.output] == ["logits", "logits_1"]


class DataDependent(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class WrongShape(nn.Module):
    def forward(self, x):
        return x @ torch.zeros(7, 7)


class ThroughNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)


class FlatAttention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            FlatAttention(),
            r"FlatAttention cannot be.*test_onnx\.py:\d+, in forward\): aten\.scaled_dot.*4D.*write it with",
        ),
        (Bessel(), r"Bessel cannot be exported.*bessel_j0.*No ONNX function found.*write it with others"),
        (DataDependent(), r"DataDependent cannot be exported.*test_onnx\.py:\d+, in forward.*torch\.where"),
        (FixedBatch(), r"FixedBatch cannot be exported.*batch.*write x\.shape\[0\]"),
        (WrongShape(), r"WrongShape cannot be exported.*test_onnx\.py:\d+, in forward.*reduction dim"),
        (ThroughNumpy(), r"ThroughNumpy cannot be exported.*test_onnx\.py:\d+, in forward.*numpy"),
    ],
)
def test_models_that_cannot_be_captured(model, message, tmp_path):
    with pytest.raises(ModelError, match=message) as raised:
        export_onnx(model, (torch.ones(2, 8),), tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_detector_finds_the_same_boxes(tmp_path):
    """Every box counts, so that random weights find some; the file must agree on an image it was not made with."""
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = detector(weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.0).eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, ([torch.rand(3, 320, 320)],), path)
    image = torch.rand(3, 320, 320)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"input": image.numpy()}), strict=True))
    (expected,) = model([image])
    assert set(names) == set(expected)
    assert len(expected["boxes"]) > 10
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value.detach().numpy(), atol=1e-2, rtol=1e-3)
    assert b"site-packages" not in path.read_bytes()


class Named(nn.Module):
    """Takes a dictionary, gives one."""

    def forward(self, x):
        return {"sum": x["a"] + x["b"], "more": [x["a"], {"sum": x["b"]}]}


def test_dictionaries_keep_their_keys():
    proto = to_onnx(Named(), ({"a": torch.ones(2), "b": torch.zeros(2)},))
    assert [value.name for value in proto.graph.input] == ["input", "input_1"]
    assert [value.name for value in proto.graph.output] == ["sum", "more", "sum_1"]


def test_an_example_in_another_memory_format_gives_the_same_file():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    x = torch.randn(2, 3, 8, 8)
    last = x.contiguous(memory_format=torch.channels_last)
    assert to_onnx(net, (last,)).SerializeToString() == to_onnx(net, (x,)).SerializeToString()
