import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adaptkit.errors import ModelError, TargetError
from adaptkit.quantization import PartialSumQuantization
from adaptkit.quantization.accumulators import PartialSums, accumulate
from adaptkit.quantization.plan import Accumulator, Grid
from adaptkit.quantization.sums import needed_shift
from adaptkit.technique import Context
from tests.quantization.nets import Residual, exported, run, settled

aten = torch.ops.aten


def slow_fit(value: int, bits: int, overflow: str) -> int:
    half = 1 << bits - 1
    if overflow == "saturate":
        return max(-half, min(half - 1, value))
    return (value + half) % (1 << bits) - half


def slow_convolution(x, weight, accumulator, stride, padding, groups):
    """Loop over everything with Python's whole numbers."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    count, _, height, width = x.shape
    out, each, kernel, _ = weight.shape
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    result = np.zeros((count, out, rows, columns))
    for n, o, i, j in np.ndindex(*result.shape):
        first = o // (out // groups) * each
        kept = 0
        for start in range(0, each, accumulator.tile):
            tile = 0
            for c in range(start, min(start + accumulator.tile, each)):
                for u, v in np.ndindex(kernel, kernel):
                    tile += int(x[n, first + c, i * stride + u, j * stride + v]) * int(weight[o, c, u, v])
            half = (1 << accumulator.shift) // 2
            kept = slow_fit(kept + ((tile + half) >> accumulator.shift), accumulator.bits, accumulator.overflow)
        result[n, o, i, j] = kept << accumulator.shift if kept >= 0 else -((-kept) << accumulator.shift)
    return result


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize(("groups", "tile"), [(1, 3), (1, 1), (2, 2), (4, 8)])
@pytest.mark.parametrize(("bits", "shift"), [(10, 0), (8, 3), (20, 0), (6, 7)])
def test_convolutions_bit_by_bit(overflow, groups, tile, bits, shift):
    random = np.random.default_rng(bits + groups)
    x = random.integers(-30, 226, (2, 8, 5, 4))
    weight = random.integers(-64, 64, (4, 8 // groups, 3, 3))
    accumulator = Accumulator(bits, tile, overflow, shift)
    grids = Grid((0.5,), (30,), signed=False), Grid((0.25,) * 4, (0,) * 4, bits=7, axis=0)
    sums = PartialSums(aten.conv2d.default, ([2, 2], [1, 1], [1, 1], groups), *grids, accumulator)
    found = sums(torch.tensor(x * 0.5, dtype=torch.float32), torch.tensor(weight * 0.25, dtype=torch.float32))
    expected = slow_convolution(x, weight, accumulator, 2, 1, groups)
    assert np.array_equal(found.numpy() / 0.125, expected)


@given(
    st.lists(st.integers(-500, 500), min_size=1, max_size=6), st.integers(4, 12), st.sampled_from(["saturate", "wrap"])
)
def test_accumulating_one_value(parts, bits, overflow):
    kept = 0
    for part in parts:
        kept = slow_fit(kept + part, bits, overflow)
    found = accumulate([torch.tensor([float(part)]) for part in parts], Accumulator(bits, 1, overflow))
    assert found.tolist() == [kept]


@given(st.lists(st.integers(0, 1 << 16), min_size=1, max_size=6), st.integers(4, 24), st.sampled_from([-1, 1]))
def test_sums_fit_after_the_shift(parts, bits, sign):
    shift = needed_shift(sum(parts), bits, len(parts))
    tensors = [torch.tensor([float(sign * part)]) for part in parts]
    kept = accumulate(tensors, Accumulator(bits, 1, "wrap", shift))
    assert kept.tolist() == accumulate(tensors, Accumulator(30, 1, "saturate", shift)).tolist()


@given(st.integers(1, 1 << 20), st.integers(4, 24))
def test_the_shift_of_one_part_is_the_smallest_that_fits(largest, bits):
    shift, limit = needed_shift(largest, bits), 1 << bits - 1
    assert largest < limit if shift == 0 else round(largest / (1 << shift)) < limit
    assert shift == 0 or round(largest / (1 << shift - 1)) >= limit or largest / (1 << shift - 1) >= limit - 0.5


def test_more_parts_than_the_bits_can_count():
    with pytest.raises(TargetError, match="16 partial sums cannot be kept in 4 bits"):
        needed_shift(100, 4, 16)


def test_a_tile_that_is_not_exact_is_refused():
    grids = Grid((1.0,), (0,), signed=False), Grid((1.0,), (0,))
    sums = PartialSums(aten.linear.default, (), *grids, Accumulator(16, 1000))
    with pytest.raises(ModelError, match="choose tile=511"):
        sums(torch.zeros(1, 1000), torch.zeros(1, 1000))


@pytest.fixture(scope="module")
def x():
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def apply(x, **settings):
    notes: list[str] = []
    context = Context(example_inputs=(x[:1],), calibration=(x, None), notes=notes)
    return PartialSumQuantization(calibration=16, **settings).apply(settled(Residual(), 3, 32, 32), context), notes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"accumulator_bits": 12, "tile": 4}, marks=pytest.mark.slow),
        {"accumulator_bits": 14, "shift": 0, "overflow": "wrap"},
        pytest.param({"weight_bits": 4, "activation_bits": 4, "tile": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_file_computes_the_same_integers(settings, x):
    quantized, _ = apply(x, **settings)
    simulated = quantized(x).detach().numpy()
    assert np.abs(run(exported(quantized, x), x) - simulated).mean() < 0.02 * simulated.std()
    quantized(x).square().sum().backward()
    assert all(p.grad is not None for p in quantized.parameters())


def test_narrow_sums_cost_accuracy_and_wide_ones_nothing(x):
    exact = settled(Residual(), 3, 32, 32)(x).detach()
    errors = []
    for bits in (24, 9, 6):
        quantized, _ = apply(x, accumulator_bits=bits, tile=4)
        errors.append(float((quantized(x).detach() - exact).square().mean()))
        assert all(a.bits == bits for a in quantized.plan.accumulators.values())
    assert errors[0] < errors[1] < errors[2]
    wide, _ = apply(x, accumulator_bits=24)
    assert all(accumulator.shift == 0 for accumulator in wide.plan.accumulators.values())


def test_notes_state_the_accelerator(x):
    _, notes = apply(x)
    assert "256 multipliers at 500 MHz" in notes[-1]
    assert notes[-2].startswith("6 layers keep partial sums of 16 bits")


def test_a_linear_layer_in_one_tile_is_plain_arithmetic():
    layer = nn.Linear(6, 3)
    x = torch.randn(8, 6)
    context = Context(example_inputs=(x[:1],), calibration=(x, None))
    quantized = PartialSumQuantization(tile=6, accumulator_bits=24).apply(nn.Sequential(layer), context)
    torch.testing.assert_close(quantized(x), layer(x), rtol=0.05, atol=0.05)
