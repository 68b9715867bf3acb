"""Two counters of multiply-accumulates, and the one on the exported graph."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export.onnx import to_onnx
from adaptkit.profiling.graph import graph_cost
from adaptkit.profiling.macs import Macs, count_macs, onnx_macs
from adaptkit.profiling.parameters import count_parameters

_HEADS, _TOKENS, _WIDTH, _HIDDEN = 4, 5, 32, 64
_ATTENTION = _TOKENS * _WIDTH * 3 * _WIDTH + 2 * _TOKENS * _TOKENS * _WIDTH + _TOKENS * _WIDTH * _WIDTH


class Products(nn.Module):
    """Attention and products as functions, outside any layer."""

    def forward(self, x):
        attended = nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        return torch.einsum("bij,bkj->bik", attended, x) @ x


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(4, 6, 3, stride=2), (4, 9, 9), 6 * 4 * 4 * 4 * 9),
        (nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 5, 5), 8 * 5 * 5 * 1 * 9),
        (nn.Conv1d(2, 3, 5), (2, 9), 3 * 5 * 2 * 5),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 6 * 4),
        (nn.Linear(7, 3), (7,), 21),
        (nn.Linear(7, 3, bias=False), (5, 7), 5 * 21),
        (Products(), (6, 8), 4 * 6 * 6 * 8),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), (3, 4, 4), 0),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_against_hand_counts(model, shape, macs, batch):
    found = count_macs(model, (torch.randn(batch, *shape),))
    assert (found.total, found.cross_check, found.uncounted) == (macs, macs, ())
    assert onnx_macs(to_onnx(model, (torch.randn(2, *shape),))) == macs


def test_fused_attention_without_gradients_is_counted():
    layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, _HIDDEN, batch_first=True).eval()
    with torch.no_grad():
        found = count_macs(layer, (torch.zeros(2, _TOKENS, _WIDTH),))
    feed_forward = 2 * _TOKENS * _WIDTH * _HIDDEN
    assert found.total == found.cross_check == _ATTENTION + feed_forward
    assert found.per_layer["self_attn"] == _ATTENTION
    assert torch.backends.mha.get_fastpath_enabled()


def test_per_layer_and_called_twice():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2))
    found = count_macs(model, (torch.zeros(1, 4),))
    assert found.per_layer == {"0": 32, "3": 8}


def test_mode_and_hooks_are_restored_when_the_model_fails():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3)).train()
    model[0].eval()
    with pytest.raises(RuntimeError):
        count_macs(model, (torch.zeros(1, 4),))
    assert model.training
    assert not model[0].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_operations_without_a_formula_are_listed():
    found = count_macs(nn.LSTM(4, 4), (torch.zeros(2, 3, 4),))
    assert found.uncounted
    assert found.total == 0


def test_counters_that_differ_by_more_than_a_percent():
    assert Macs(1000, {}, (), 1009).agrees
    assert not Macs(1000, {}, (), 1011).agrees
    assert Macs(0, {}, (), 0).agrees


def quantized_convolution(weight_type=TensorProto.INT8):
    """x → Q → DQ → Conv ← DQ ← int8 weight."""
    constants = [
        helper.make_tensor("w", weight_type, (4, 2, 3, 3), [1] * 72),
        helper.make_tensor("s", TensorProto.FLOAT, (), [0.1]),
        helper.make_tensor("zw", weight_type, (), [0]),
        helper.make_tensor("zx", TensorProto.UINT8, (), [0]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="body.conv/Conv"),
        helper.make_node("Conv", ["y", "fw"], ["z"], name="/Conv", group=4),
    ]
    constants.append(helper.make_tensor("fw", TensorProto.FLOAT, (4, 1, 1, 1), [1.0] * 4))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 5, 5])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4, 3, 3])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_quantized_graph():
    cost = graph_cost(quantized_convolution())
    first, second = cost.nodes
    assert (first.layer, first.macs, first.integer, first.depthwise) == ("body.conv", 4 * 9 * 2 * 9, True, False)
    assert first.activation_bytes == 2 * 25 + 4 * 9
    assert (second.layer, second.macs, second.integer, second.depthwise) == ("Conv", 36, False, True)
    assert second.activation_bytes == 4 * (36 + 36)
    assert (cost.macs, cost.integer_macs) == (684, 648)
    assert cost.weight_bytes == 72 + 4 + 1 + 1 + 16
    assert cost.macs_per_layer() == {"body.conv": 648, "Conv": 36}


def test_free_dimension_besides_the_batch():
    proto = quantized_convolution()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ModelError, match="input x has free dimensions besides the batch: height"):
        graph_cost(proto)


def test_heavy_operations_without_a_formula():
    proto = to_onnx(Products(), (torch.zeros(2, 6, 8),))
    assert all(node.op_type != "LSTM" for node in proto.graph.node)
    node = helper.make_node("Einsum", ["logits"], ["extra"], equation="bij->bi")
    proto.graph.node.append(node)
    proto.graph.output.append(onnx.ValueInfoProto(name="extra"))
    assert "Einsum" in graph_cost(proto).uncounted


def test_parameters():
    shared = nn.Linear(4, 3)
    model = nn.Sequential(shared, nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 4), shared))
    assert count_parameters(model) == 15 + 6 + 16
