"""Large constants beside a graph: the same files, without copies."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export import files, held
from adaptkit.export.files import read_model, write_model
from adaptkit.export.onnx import _final, export_onnx, final_onnx
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime.model import AdaptedModel
from adaptkit.specs import ExportSpec
from adaptkit.technique import Context


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(160, 200), nn.ReLU(), nn.Linear(200, 160), nn.Linear(160, 4)).eval()


X = torch.rand(8, 160)


def test_large_constants_are_looked_at_where_they_are(net):
    proto, found = _final(net, (X,), 20)
    assert len(found) == 2
    weights = {weight.data_ptr() for weight in net.parameters()}
    assert all(value.ctypes.data in weights for value in found.values())
    assert proto.ByteSize() < 20_000
    assert all(not tensor.raw_data for tensor in proto.graph.initializer if tensor.name in found)


def test_filled_in_it_is_the_whole_model(net, tmp_path):
    proto = final_onnx(net, (X,))
    onnx.checker.check_model(proto)
    onnx.save(proto, tmp_path / "model.onnx")
    np.testing.assert_allclose(
        AdaptedModel.load(tmp_path / "model.onnx").predict(X.numpy()), net(X).detach(), atol=1e-5
    )


@pytest.mark.parametrize("single", [True, False])
def test_the_file_holds_them_inside_or_beside(net, tmp_path, single):
    path = tmp_path / "model.onnx"
    export_onnx(net, (X,), path, spec=ExportSpec(single_file=single))
    assert len(list(tmp_path.glob("*.data"))) == (not single)
    np.testing.assert_allclose(AdaptedModel.load(path).predict(X.numpy()), net(X).detach(), atol=1e-5)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in read_model(path).graph.initializer}
    np.testing.assert_array_equal(stored["0.weight"], net[0].weight.detach().numpy())


def test_what_integers_replace_is_dropped(net):
    quantized = StaticQuantization(ignore=("2",)).apply(net, Context((X[:2],), calibration=(X, torch.zeros(8))))
    proto, found = _final(quantized, (X[:2],), 20)
    assert len(found) == 1
    assert next(iter(found.values())).shape == (160, 200)
    assert {t.name for t in proto.graph.initializer if t.name in found} == set(found)


def test_too_large_for_one_file_is_said_before_anything_is_copied(net, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LIMIT", 100_000)
    with pytest.raises(ModelError, match=r"at most 2 GB, this model has .*single_file to false"):
        export_onnx(net, (X,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    export_onnx(net, (X,), tmp_path / "model.onnx", spec=ExportSpec(single_file=False))


def _proto(op: str, constant: np.ndarray) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", 300)) for name in "xy"]
    node = helper.make_node(op, ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", value[:1], value[1:], [numpy_helper.from_array(constant, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_graph_is_checked_without_its_large_constants():
    large = np.zeros((300, 300), np.float32)
    held.check_graph(_proto("MatMul", large))
    with pytest.raises(onnx.checker.ValidationError):
        held.check_graph(_proto("NoSuchOperator", large))


def test_bfloat16_goes_beside_too(tmp_path):
    proto = _proto("MatMul", np.zeros((300, 300), np.float32))
    kind = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    value = np.ones((300, 300), np.float32).astype(kind)
    proto.graph.initializer.append(numpy_helper.from_array(value, "half"))
    write_model(proto, tmp_path / "model.onnx", single_file=False)
    stored = {t.name: numpy_helper.to_array(t) for t in read_model(tmp_path / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(stored["half"].astype(np.float32), value.astype(np.float32))
