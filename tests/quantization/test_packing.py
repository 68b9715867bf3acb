import itertools

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from adaptkit.export.onnx import final_onnx
from adaptkit.profiling.parameters import count_parameters, graph_constants
from adaptkit.quantization.inspect import float_islands, optimized, saturation_risk
from adaptkit.quantization.packing import pack_bits, unpack_bits
from adaptkit.quantization.plan import Grid
from adaptkit.quantization.planner import Rounding
from adaptkit.quantization.qat import QuantizationAwareTraining
from adaptkit.quantization.qdq import to_integers
from adaptkit.quantization.simulate import FakeQuantize
from adaptkit.quantization.static import StaticQuantization
from adaptkit.quantization.weights import weight_grid
from adaptkit.technique import Context
from tests.quantization.nets import Residual, exported, run, settled


def grid_of(bits: int, odd: bool) -> Grid:
    return Grid((1.0,), (0,), bits, odd=odd)


@given(st.integers(1, 7), st.booleans(), st.data())
def test_packed_values_come_back(bits, odd, data):
    grid = grid_of(bits, odd)
    levels = st.sampled_from(range(grid.lowest, grid.highest + 1, 2 if odd else 1))
    values = np.array(data.draw(st.lists(levels, min_size=1, max_size=40)), np.int8)
    planes = pack_bits(values, grid)
    assert planes.nbytes == bits * -(-len(values) // 8)
    assert np.array_equal(unpack_bits(planes, grid, values.shape), values)


def test_the_first_value_lies_in_the_lowest_bits():
    assert pack_bits(np.array([-4, 3, -3]), grid_of(3, False))[:, 0, 0].tolist() == [0b110, 0b010, 0b010]


@pytest.mark.parametrize("bits", range(1, 9))
def test_grids_of_few_bits_round_like_the_file(bits):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(bits))
    grid = weight_grid(weight, bits)
    integers = to_integers(weight.numpy(), grid)
    assert len(np.unique(integers)) <= 1 << bits
    scale = np.array(grid.scale, np.float32).reshape(-1, 1, 1, 1)
    assert np.array_equal(integers * scale, FakeQuantize(grid)(weight).numpy())
    assert grid.odd == (bits <= 2)


def test_more_bits_lose_less_and_pruned_weights_stay_zero():
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    errors = [float((FakeQuantize(weight_grid(weight, bits))(weight) - weight).square().mean()) for bits in range(1, 9)]
    assert all(more < 0.7 * fewer for fewer, more in itertools.pairwise(errors))
    weight[:, ::2] = 0
    for bits in (2, 3):
        assert (FakeQuantize(weight_grid(weight, bits))(weight)[:, ::2] == 0).all()


def test_two_odd_bits_are_the_best_four_levels_nearly():
    weight = torch.randn(1, 20000, generator=torch.Generator().manual_seed(0))
    error = float((FakeQuantize(weight_grid(weight, 2))(weight) - weight).square().mean())
    # Max 1960, "Quantizing for minimum distortion", table II: 0.1188 for four equal steps of a normal variable.
    assert error == pytest.approx(0.1188, rel=0.03)


@pytest.fixture(scope="module")
def files():
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    made = {}
    for bits in (2, 3, 7):
        technique = StaticQuantization(calibration=16)
        model = settled(Residual(), 3, 32, 32)
        context = Context(example_inputs=(x[:1],), calibration=(x, None))
        quantized = technique.start(model, context, Rounding(weight_bits=bits))
        made[bits] = quantized, exported(quantized, x)
    return x, made


@pytest.mark.parametrize("bits", [2, 3, 7])
def test_the_file_computes_what_the_simulator_computes(files, bits):
    x, made = files
    quantized, proto = made[bits]
    simulated = quantized(x).detach().numpy()
    assert np.abs(run(proto, x) - simulated).mean() < 0.02 * simulated.std()
    assert np.abs(run(proto, x, optimize=False) - simulated).mean() < 0.02 * simulated.std()


def test_weights_take_their_bits_and_run_on_integer_kernels(files):
    _, made = files
    for bits, (quantized, proto) in made.items():
        packed = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("_packed")]
        weights = [p.numel() for p in quantized.model.parameters() if p.dim() > 1]
        assert sum(array.nbytes for array in packed) == sum(bits * -(-count // 8) for count in weights)
        types = [node.op_type for node in optimized(proto).graph.node]
        assert types.count("QLinearConv") == 5
        assert "Unpack" not in types
        assert float_islands(proto) == []
        assert saturation_risk(proto) == []


def test_symmetric_layers_of_one_width_share_their_zeros(files):
    _, made = files
    names = [tensor.name for tensor in made[3][1].graph.initializer]
    assert "zeros_int8_8" in names
    assert not any(name.endswith("weight_zero_point") for name in names)
    onnx.checker.check_model(made[3][1], full_check=True)


def test_seven_bits_of_a_single_layer():
    layer, x = nn.Conv2d(1, 3, 3), torch.rand(2, 1, 5, 5)
    context = Context(example_inputs=(x[:1],), calibration=(x, None))
    quantized = StaticQuantization(weight_bits=7, calibration=2).apply(nn.Sequential(layer, nn.ReLU()), context)
    file = run(exported(quantized, x), x)
    assert np.abs(file - quantized(x).detach().numpy()).max() <= quantized.plan.tensors["relu"].scale[0] * 1.01


def test_packed_weights_count_as_the_weights_they_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    x, count = torch.randn(16, 3, 8, 8), count_parameters(net)
    seen = x, torch.zeros(16, dtype=torch.long)
    context = Context(example_inputs=(x,), train=seen, calibration=seen)
    packed = QuantizationAwareTraining(weight_bits=3, epochs=0.5, rounding="nearest").apply(net, context)
    assert graph_constants(final_onnx(packed, (x,)).graph) == count
