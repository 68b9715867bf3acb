import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adaptkit.errors import TargetError
from adaptkit.quantization.accelerator import Accelerator, LayerShape, Widths
from adaptkit.quantization.allocation import allocate
from adaptkit.quantization.sensitivity import layer_shapes, sensitivities
from tests.quantization.nets import Residual, quantize, settled

options = st.lists(st.tuples(st.integers(1, 30), st.floats(0, 10)), min_size=1, max_size=3)


@given(st.lists(options, min_size=1, max_size=5), st.integers(1, 100))
def test_the_choice_is_the_best_of_all(layers, budget):
    costs, losses = ([[entry[side] for entry in layer] for layer in layers] for side in (0, 1))
    choices = list(itertools.product(*(range(len(layer)) for layer in layers)))

    def total(table, choice):
        return sum(row[index] for row, index in zip(table, choice, strict=True))

    allowed = [choice for choice in choices if total(costs, choice) <= budget]
    if not allowed:
        with pytest.raises(TargetError, match="allow fewer bits"):
            allocate(costs, losses, budget)
        return
    found = allocate(costs, losses, budget)
    assert total(costs, found) <= budget
    assert total(losses, found) == pytest.approx(min(total(losses, choice) for choice in allowed))


@given(st.lists(st.lists(st.floats(0.001, 1), min_size=2, max_size=2), min_size=1, max_size=6), st.floats(0.5, 6))
def test_costs_of_any_size_keep_the_budget(costs, budget):
    losses = [[1.0, 0.0] for _ in costs]
    if sum(min(row) for row in costs) > 0.99 * budget:
        return
    found = allocate(costs, losses, budget)
    assert sum(row[index] for row, index in zip(costs, found, strict=True)) <= budget * (1 + 1e-9)


def test_sensitivities_fall_with_bits_and_name_what_matters():
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = settled(Residual(), 3, 32, 32)
    quantized = quantize(model, x, weight_bits=8)
    found = sensitivities(quantized, (1, 3, 7), [(x[:16],), (x[16:],)])
    assert list(found) == ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4", "linear"]
    assert all(one > three > seven >= 0 for one, three, seven in found.values())
    assert torch.equal(quantized(x), quantize(settled(Residual(), 3, 32, 32), x, weight_bits=8)(x))


def test_shapes_of_layers():
    x = torch.randn(4, 3, 8, 6)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)).eval()
    shapes = layer_shapes(quantize(net, x), tile=2)
    assert list(shapes.values()) == [
        LayerShape(macs=4 * 6 * 4 * 27, inputs=144, weights=108, outputs=96, tiles=2),
        LayerShape(macs=192, inputs=96, weights=192, outputs=2, tiles=48),
    ]


def test_energy_by_hand_and_time_by_the_slowest_part():
    chip, layer = Accelerator(), LayerShape(macs=1000, inputs=40, weights=10, outputs=20, tiles=3)
    moved = (40 + 20) * 4 / 8 + 2 * 2 * 20 * 16 / 8
    picojoules = 1000 * (0.2 * 2 * 4 / 64 + 0.1 * 16 / 32) + moved * 2.5 + 10 * 2 / 8 * 160
    assert chip.millijoules(layer, Widths(2, 4, 16)) == pytest.approx(picojoules * 1e-9)
    assert chip.seconds(LayerShape(256, 1, 1, 1), Widths(4, 8)) == pytest.approx(0.5 / 500e6)
    assert chip.seconds(LayerShape(1, 1, 1600, 1), Widths(8, 8)) == pytest.approx(100 / 500e6)
    assert chip.seconds(LayerShape(1, 0, 1, 640, tiles=3), Widths(8, 8, 8)) == pytest.approx(50 / 500e6)


@pytest.mark.parametrize("field", ["weight", "activation", "accumulator"])
def test_narrower_is_never_dearer(field):
    chip, layer = Accelerator(), LayerShape(5000, 100, 300, 80, tiles=4)
    costs = [chip.millijoules(layer, Widths(**{field: bits})) for bits in range(1, 9)]
    times = [chip.seconds(layer, Widths(**{field: bits})) for bits in range(1, 9)]
    assert costs == sorted(costs)
    assert times == sorted(times)
