"""Against the kernels themselves: ONNX Runtime on single integer operations."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch.nn import functional as F

from adaptkit.quantization.integers import (
    Divided,
    IntegerLayer,
    IntegerMean,
    IntegerPool,
    IntegerProduct,
    IntegerSum,
    rescaled,
)
from adaptkit.quantization.plan import Grid

FEW = settings(max_examples=40, deadline=None)
scales = st.floats(1e-3, 2.0)
zeros = st.one_of(st.just(0), st.integers(0, 255))
seeds = st.integers(0, 2**31)


def unsigned(scale: float, zero: int) -> Grid:
    return Grid((float(np.float32(scale)),), (zero,), signed=False)


def values(integers: np.ndarray, grid: Grid) -> torch.Tensor:
    return torch.from_numpy(integers.astype(np.float32) - grid.zero_point[0]) * grid.scale[0]


def parameters(grid: Grid) -> list[np.ndarray]:
    return [np.array(grid.scale[0], np.float32), np.array(grid.zero_point[0], np.uint8)]


def kernel(kind: str, domain: str, inputs: list[np.ndarray], **attributes) -> np.ndarray:
    names = [f"x{index}" for index in range(len(inputs))]
    types = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in inputs]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], domain=domain, **attributes)],
        "one",
        [helper.make_tensor_value_info(*entry) for entry in zip(names, types, [v.shape for v in inputs], strict=True)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def all_pairs() -> tuple[np.ndarray, np.ndarray]:
    first, second = np.meshgrid(np.arange(256), np.arange(256))
    return first.ravel().astype(np.uint8), second.ravel().astype(np.uint8)


def same(found: torch.Tensor, kernels: np.ndarray, grid: Grid) -> bool:
    return torch.equal(found, values(kernels, grid))


def assert_all_pairs(operation: type, kind: str, grids: tuple[Grid, Grid], result: Grid) -> None:
    x, y = all_pairs()
    found = operation(grids, result)(values(x, grids[0]), values(y, grids[1]))
    inputs = [x, *parameters(grids[0]), y, *parameters(grids[1]), *parameters(result)]
    assert same(found, kernel(kind, "com.microsoft", inputs), result)


@FEW
@given(scales, scales, st.floats(0.2, 1.5), zeros, zeros, zeros)
def test_sums_of_all_pairs(a, b, part, zero_a, zero_b, zero_y):
    grids = unsigned(a, zero_a), unsigned(b, zero_b)
    assert_all_pairs(IntegerSum, "QLinearAdd", grids, unsigned((a + b) * part, zero_y))


@FEW
@given(scales, scales, st.floats(20, 300), zeros, zeros, zeros)
def test_products_of_all_pairs(a, b, part, zero_a, zero_b, zero_y):
    grids = unsigned(a, zero_a), unsigned(b, zero_b)
    assert_all_pairs(IntegerProduct, "QLinearMul", grids, unsigned(a * b * part, zero_y))


@FEW
@given(scales, scales, st.floats(20, 300), zeros, zeros, seeds)
def test_products_of_channels_with_their_factor(a, b, part, zero_a, zero_y, seed):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (2, 5, 3, 7), np.uint8)
    y = random.integers(0, 256, (2, 5, 1, 1), np.uint8)
    grids, result = (unsigned(a, zero_a), unsigned(b, 0)), unsigned(a * b * part, zero_y)
    found = IntegerProduct(grids, result)(values(x, grids[0]), values(y, grids[1]))
    inputs = [x, *parameters(grids[0]), y, *parameters(grids[1]), *parameters(result)]
    assert same(found, kernel("QLinearMul", "com.microsoft", inputs), result)


@FEW
@given(scales, st.floats(0.2, 1.5), zeros, zeros, st.integers(1, 9), seeds)
def test_global_means(scale, part, zero, zero_y, side, seed):
    x = np.random.default_rng(seed).integers(0, 256, (2, 16, side, side), np.uint8)
    grid, result = unsigned(scale, zero), unsigned(scale * part, zero_y)
    found = IntegerMean((grid,), result)(values(x, grid))
    inputs = [x, *parameters(grid), *parameters(result)]
    assert same(found, kernel("QLinearGlobalAveragePool", "com.microsoft", inputs, channels_last=0), result)


@FEW
@given(scales, st.floats(0.2, 1.5), zeros, zeros, st.integers(2, 3), st.integers(1, 3), seeds)
def test_means_of_windows(scale, part, zero, zero_y, side, stride, seed):
    x = np.random.default_rng(seed).integers(0, 256, (2, 16, 12, 12), np.uint8)
    grid, result = unsigned(scale, zero), unsigned(scale * part, zero_y)
    found = IntegerPool((grid,), result, (side, side), (stride, stride))(values(x, grid))
    inputs, windows = [x, *parameters(grid), *parameters(result)], {"kernel_shape": [side] * 2, "strides": [stride] * 2}
    assert same(found, kernel("QLinearAveragePool", "com.microsoft", inputs, **windows), result)


@FEW
@given(scales, scales, st.floats(1, 300), zeros, zeros, st.sampled_from([1, 2, 7]), st.sampled_from([1, 8]), seeds)
def test_convolutions(scale, width, part, zero, zero_y, bits, groups, seed):
    random, largest = np.random.default_rng(seed), 2 ** (bits - 1)
    x = random.integers(0, 256, (2, 8, 6, 6), np.uint8)
    weight = random.integers(-largest, largest, (8, 8 // groups, 3, 3), np.int8)
    step = (np.float32(width) * random.uniform(0.5, 1.5, 8)).astype(np.float32)
    bias = random.integers(-4000, 4000, 8, np.int32)
    grid, result = unsigned(scale, zero), unsigned(scale * width * part, zero_y)
    weights = Grid(tuple(step.tolist()), (0,) * 8, bits=bits, axis=0)
    biases = Grid(tuple((np.float32(scale) * step).tolist()), (0,) * 8, bits=32, axis=0)
    layer = IntegerLayer((grid, weights, biases), result, F.conv2d, (1, 1, 1, groups))
    found = layer(
        values(x, grid),
        torch.from_numpy(weight.astype(np.float32) * step.reshape(-1, 1, 1, 1)),
        torch.from_numpy(bias * np.float32(scale) * step),
    )
    inputs = [x, *parameters(grid), weight, step, np.zeros(8, np.int8), *parameters(result), bias]
    shape = {"kernel_shape": [3, 3], "pads": [1] * 4, "group": groups}
    assert same(found, kernel("QLinearConv", "", inputs, **shape), result)


@pytest.mark.parametrize("inputs", [16, 1 << 12])
def test_linear_layers_with_small_and_large_sums(inputs):
    random = np.random.default_rng(0)
    x = random.integers(200, 256, (16, inputs), np.uint8)
    weight = random.integers(30, 64, (8, inputs), np.int8)
    bias = random.integers(-4000, 4000, 8, np.int32)
    grid, result = unsigned(0.05, 0), unsigned(0.05 * 0.01 * inputs * 50, 3)
    step = np.full(8, 0.01, np.float32)
    weights = Grid(tuple(step.tolist()), (0,) * 8, axis=0)
    biases = Grid(tuple((np.float32(0.05) * step).tolist()), (0,) * 8, bits=32, axis=0)
    layer = IntegerLayer((grid, weights, biases), result, F.linear, ())
    exact = torch.from_numpy(bias * (np.float64(np.float32(0.05)) * step)).float()
    found = layer(values(x, grid), torch.from_numpy(weight * step.reshape(-1, 1)), exact)
    given = [x, *parameters(grid), weight.T.copy(), step, np.zeros(8, np.int8), bias, *parameters(result)]
    assert same(found, kernel("QGemm", "com.microsoft", given, transB=0), result)
    sums = weight.astype(np.int64).sum(1) * 255
    assert (sums.max() > 1 << 24) == (inputs > 16)


def test_sums_that_float32_cannot_hold_are_exact_before_they_are_scaled():
    random = np.random.default_rng(0)
    x, weight = random.integers(200, 256, (64, 4096)), random.integers(30, 64, (8, 4096))
    one = Grid((1.0,), (0,), bits=32)
    layer = IntegerLayer((unsigned(1.0, 0), Grid((1.0,) * 8, (0,) * 8, axis=0)), one, F.linear, ())
    found = layer(torch.from_numpy(x).float(), torch.from_numpy(weight).float())
    assert torch.equal(found, torch.from_numpy(x @ weight.T).float())


@FEW
@given(scales, zeros, seeds)
def test_rounding_of_floats(scale, zero, seed):
    grid = unsigned(scale, zero)
    # Half steps among them: ties are what another formula would decide otherwise.
    steps = np.random.default_rng(seed).integers(-600, 600, 4096).astype(np.float32) / 2
    x = steps * np.float32(scale)
    found = Divided(grid)(torch.from_numpy(x))
    assert same(found, kernel("QuantizeLinear", "", [x, *parameters(grid)]), grid)


def test_gradients_are_those_of_the_clamped_float_operation():
    grid, result = unsigned(0.1, 128), Grid((0.1,), (128,), signed=False)
    a = torch.tensor([1.0, 12.0, -12.0], requires_grad=True)
    b = torch.tensor([0.5, 12.0, -12.0], requires_grad=True)
    total = IntegerSum((grid, grid), result)(a, b)
    total.sum().backward()
    assert total.tolist() == pytest.approx([1.5, 12.7, -12.8])
    assert a.grad.tolist() == b.grad.tolist() == [1.0, 0.0, 0.0]
    x = torch.tensor([0.31, 99.0], requires_grad=True)
    Divided(grid)(x).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]


def test_a_tensor_that_is_spread_over_another_is_added_in_floats():
    grid = unsigned(0.1, 0)
    found = IntegerSum((grid, grid), unsigned(0.2, 0))(torch.ones(2, 3), torch.ones(1, 3))
    torch.testing.assert_close(found, torch.full((2, 3), 2.0))


def test_halves_go_to_the_even_neighbour():
    grid = Grid((1.0,), (0,), signed=False)
    assert rescaled(torch.tensor([1.0, 3.0, 5.0]), torch.tensor(0.5), grid).tolist() == [0.0, 2.0, 2.0]
