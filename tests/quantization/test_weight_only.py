import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from adaptkit.errors import TargetError
from adaptkit.quantization import DynamicQuantization, WeightOnlyQuantization
from adaptkit.quantization.inspect import optimized
from adaptkit.quantization.plan import Grid
from adaptkit.quantization.qdq import to_integers
from adaptkit.quantization.simulate import DynamicQuantize, FakeQuantize, HalfPrecision
from adaptkit.quantization.weights import block_grid
from adaptkit.technique import Context
from tests.quantization.nets import Residual, exported, run, settled


class Wide(nn.Module):
    """Linear layers on vectors and on sequences, with and without bias."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(48, 64), nn.Linear(64, 32, bias=False), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))).mean(1))


@pytest.fixture(scope="module")
def x():
    return torch.randn(6, 7, 48, generator=torch.Generator().manual_seed(1))


def stored(proto: onnx.ModelProto, kind: int) -> int:
    return sum(tensor.data_type == kind for tensor in proto.graph.initializer)


def apply(technique, model, x):
    notes: list[str] = []
    return technique.apply(model, Context(example_inputs=(x[:1],), notes=notes)), notes


@pytest.mark.parametrize(
    ("settings", "kind", "share"),
    [
        ({}, TensorProto.INT8, 0.3),
        ({"weights": "int8", "block": 16}, TensorProto.INT8, 0.35),
        ({"weights": "int4"}, TensorProto.INT4, 0.2),
        ({"weights": "int4", "block": 64}, TensorProto.INT4, 0.18),
        ({"weights": "float16"}, TensorProto.FLOAT16, 0.52),
        ({"weights": "bfloat16"}, TensorProto.BFLOAT16, 0.52),
    ],
    ids=str,
)
@pytest.mark.parametrize("build", [Wide, Residual])
def test_the_file_is_small_and_computes_what_the_simulator_computes(build, settings, kind, share, x):
    data = x if build is Wide else torch.randn(6, 3, 32, 32)
    model = settled(build(), *data.shape[1:])
    quantized, notes = apply(WeightOnlyQuantization(**settings), model, data)
    proto = exported(quantized, data)
    simulated, exact = quantized(data).detach().numpy(), model(data).detach().numpy()
    # ONNX Runtime's four-bit product rounds its inputs to int8 by blocks.
    assert np.abs(run(proto, data) - simulated).mean() < 0.02 * exact.std()
    assert np.abs(run(proto, data, optimize=False) - simulated).max() < 1e-3 * exact.std()
    layers = 3 if build is Wide else 6
    assert stored(proto, kind) >= layers
    assert notes[-1].startswith(f"the weights of {layers} layers")
    if build is Wide:
        weights = sum(p.numel() for p in model.parameters())
        assert sum(len(t.raw_data) for t in proto.graph.initializer) < share * 4 * weights + 600


def test_four_bits_in_blocks_reach_the_four_bit_kernel(x):
    quantized, _ = apply(WeightOnlyQuantization(weights="int4", block=16), Wide().eval(), x)
    types = [node.op_type for node in optimized(exported(quantized, x)).graph.node]
    assert types.count("MatMulNBits") == 3
    assert "DequantizeLinear" not in types


def test_blocks_round_like_numpy():
    weight = torch.randn(3, 2, 3, 3)
    grid = block_grid(weight, 4, 16)
    assert len(grid.scale) == 3 * 2
    integers = to_integers(weight.numpy(), grid).astype(np.float32).reshape(3, 18)
    scales = np.array(grid.scale, np.float32).reshape(3, 2)
    expected = np.concatenate([integers[:, :16] * scales[:, :1], integers[:, 16:] * scales[:, 1:]], 1)
    assert np.array_equal(FakeQuantize(grid)(weight).numpy().reshape(3, 18), expected)
    assert np.abs(expected - weight.numpy().reshape(3, 18)).max() < 0.2 * np.abs(weight.numpy()).max()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits_pass_gradients_and_notes_say_what_the_runtime_does(kind, x):
    values = torch.tensor([1.0001, 3e38], requires_grad=True)
    HalfPrecision(kind)(values).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0]
    _, notes = apply(WeightOnlyQuantization(weights=kind), Wide().eval(), x)
    assert kind in notes[0]
    assert "float32" in notes[0]


def test_dynamic_ranges_are_those_of_onnx_runtime(x):
    model = Wide().eval()
    exact = model(x).detach().numpy()
    quantized, notes = apply(DynamicQuantization(), model, x)
    proto = exported(quantized, x)
    file = run(proto, x)
    assert np.abs(file - quantized(x).detach().numpy()).max() < 0.01 * exact.std()
    assert 0 < np.abs(file - exact).mean() < 0.1 * exact.std()
    types = [node.op_type for node in optimized(proto).graph.node]
    assert not {"Gemm", "MatMul", "DequantizeLinear"} & set(types)
    assert stored(proto, TensorProto.INT8) == 3
    assert notes == ["3 linear layers compute on 8-bit integers, with ranges found in every call"]


def test_dynamic_leaves_convolutions_float():
    x = torch.randn(4, 3, 32, 32)
    model = settled(Residual(), 3, 32, 32)
    quantized, notes = apply(DynamicQuantization(), model, x)
    assert quantized.plan.dynamic == ("linear",)
    assert notes[1].startswith("5 convolutions stay float")
    file = run(exported(quantized, x), x)
    np.testing.assert_allclose(file, quantized(x).detach(), atol=1e-3)


def test_dynamic_without_linear_layers_is_refused():
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert "takes linear layers" in DynamicQuantization().check(convolutions)[0]
    assert DynamicQuantization(targets=("4",)).check(nn.Sequential(nn.Linear(2, 2))) == [
        "4 matches no module of the model"
    ]
    with pytest.raises(TargetError, match="no linear layer"):
        apply(DynamicQuantization(), convolutions, torch.randn(2, 3, 8, 8))


def test_an_input_of_zeros_stays_zero():
    assert torch.equal(DynamicQuantize()(torch.zeros(3)), torch.zeros(3))
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    rounded = DynamicQuantize()(x)
    assert rounded.tolist() == pytest.approx([-1.0, 0.0, 2.0], abs=0.01)
    assert rounded[1] == 0
    rounded.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_grid_of_blocks_has_no_zero_points():
    assert block_grid(torch.randn(2, 8), 4, 4).zero_point == (0,) * 4
    assert Grid((1.0,), (0,), 4, axis=0, block=4).lowest == -8
