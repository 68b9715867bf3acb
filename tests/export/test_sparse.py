import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from adaptkit.export.files import file_bytes, read_model, write_model
from adaptkit.export.onnx import export_onnx, to_onnx
from adaptkit.export.sparse import index_bytes, make_dense, store_sparse
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime.model import AdaptedModel
from adaptkit.technique import Context


def _net(sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10)
    )
    with torch.no_grad():
        for layer in (net[0], net[4]):
            layer.weight.masked_fill_(torch.rand(layer.weight.shape) < sparsity, 0)
    return net.eval()


def _proto(value: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    y = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(value, "w")]))


def test_a_sparse_file_is_smaller_and_computes_the_same(tmp_path):
    x = torch.rand(5, 3, 8, 8)
    sizes = {}
    for sparsity in (0.0, 0.9):
        net, path = _net(sparsity), tmp_path / f"{sparsity}.onnx"
        export_onnx(net, (x,), path)
        sizes[sparsity] = file_bytes(path)
        logits = torch.from_numpy(AdaptedModel.load(path).predict(x.numpy()))
        torch.testing.assert_close(logits, net(x).detach(), rtol=1e-5, atol=1e-5)
    assert len(onnx.load(tmp_path / "0.9.onnx").graph.sparse_initializer) == 2
    assert sizes[0.9] < 0.2 * sizes[0.0]


def test_an_integer_file_keeps_zeros_and_integer_kernels(tmp_path):
    net, x = _net(0.9), torch.rand(16, 3, 8, 8)
    quantized = StaticQuantization(calibration=16).apply(
        net, Context(example_inputs=(x[:2],), calibration=(x, torch.zeros(16, dtype=torch.long)))
    )
    export_onnx(quantized, (x[:2],), tmp_path / "sparse.onnx")
    proto = read_model(tmp_path / "sparse.onnx")
    dense = tmp_path / "dense.onnx"
    dense.write_bytes(proto.SerializeToString())
    weights = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("_quantized") and t.dims]
    assert min((w == 0).mean() for w in weights if w.ndim > 1) > 0.88
    assert file_bytes(tmp_path / "sparse.onnx") < 0.6 * dense.stat().st_size
    outputs = [AdaptedModel.load(path).predict(x.numpy()) for path in (tmp_path / "sparse.onnx", dense)]
    np.testing.assert_array_equal(*outputs)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    density=st.floats(0, 1),
    kind=st.sampled_from([np.float32, np.float16, np.int8, np.uint8]),
)
def test_there_and_back_is_the_same_and_never_larger(shape, density, kind):
    random = np.random.default_rng(0)
    value = (random.integers(1, 100, shape) * (random.random(shape) < density)).astype(kind)
    proto, plain = _proto(value), _proto(value)
    store_sparse(proto)
    onnx.checker.check_model(proto)
    assert proto.ByteSize() <= plain.ByteSize()
    back = make_dense(proto).graph.initializer[0]
    assert back.name == "w"
    np.testing.assert_array_equal(numpy_helper.to_array(back), value)
    assert numpy_helper.to_array(back).dtype == kind


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6, 0.9])
def test_the_cost_of_indices_counts(share):
    """Float32 with 2-byte indices pays below 4 / 6 of the entries, int8 below 1 / 3."""
    random = np.random.default_rng(0)
    mask = random.random(10_000) < share
    for kind, pays in ((np.float32, share < 0.66), (np.int8, share < 0.33)):
        proto = _proto(mask.astype(kind))
        store_sparse(proto)
        assert bool(proto.graph.sparse_initializer) == pays


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), max_size=20))
def test_index_bytes_are_those_of_protobuf(numbers):
    tensor = onnx.TensorProto(int64_data=numbers)
    plain = index_bytes(np.array(numbers, dtype=np.int64))
    assert tensor.ByteSize() == (plain + 1 + 1 + (plain > 127) if numbers else 0)


def test_weights_beside_the_file_stay_readable(tmp_path):
    proto = to_onnx(_net(0.9), (torch.rand(2, 3, 8, 8),))
    write_model(proto, tmp_path / "model.onnx", single_file=False)
    assert {t.name for t in read_model(tmp_path / "model.onnx").graph.initializer} >= {"4.weight"}
    assert AdaptedModel.load(tmp_path / "model.onnx").predict(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 10)
