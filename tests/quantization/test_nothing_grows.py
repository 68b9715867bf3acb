"""A layer whose integers and scales take as many bytes as its floats stays float, and the notes say so."""

import onnx
import pytest
import torch
from torch import nn

from adaptkit.export.onnx import final_onnx
from adaptkit.quantization import WeightOnlyQuantization
from adaptkit.technique import Context
from adaptkit.techniques import TECHNIQUES
from tests.contract.settings import SETTINGS

QUANTIZING = [name for name, kind in TECHNIQUES.items() if "quantized" in kind.leaves]


def _context(x: torch.Tensor) -> Context:
    data = (x, torch.arange(len(x)) % 4)
    return Context((x[:2],), train=data, calibration=data, teacher=_net())


def _net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("name", QUANTIZING)
def test_a_layer_that_would_get_larger_is_left_alone(name):
    context = _context(torch.randn(64, 1))
    settings = SETTINGS[name] | ({"share": 0.3} if name == "quantize.mixed" else {})
    if name == "quantize.weight_only":
        settings = {"weights": "int8"}
    quantized = TECHNIQUES[name](**settings).apply(_net(), context)
    assert "left float, since integers and scales would take no fewer bytes: 0" in context.notes
    constants = final_onnx(quantized, context.example_inputs).graph.initializer
    floats = {tuple(tensor.dims) for tensor in constants if tensor.data_type == onnx.TensorProto.FLOAT}
    assert (64, 1) in floats
    assert not {(32, 64), (4, 32)} & floats


@pytest.mark.parametrize(
    ("settings", "weights", "bytes_stored"),
    [
        ({}, 9, 13),
        ({"block": 16}, 17, 25),
        ({"weights": "int4"}, 64, 40),
        ({"weights": "int4", "block": 16}, 17, 16.5),
        ({"weights": "float16"}, 5, 10),
    ],
)
def test_the_bytes_of_a_channel(settings, weights, bytes_stored):
    assert WeightOnlyQuantization(**settings).channel_bytes(weights) == bytes_stored
