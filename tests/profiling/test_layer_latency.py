"""The latency table: right shapes, real measurements, and the same number for ever after."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from adaptkit.profiling import layer_latency
from adaptkit.profiling.layer_latency import (
    LatencyTable,
    LayerShape,
    TimedModel,
    TimeStore,
    layer_shapes,
    median_seconds,
)
from adaptkit.profiling.macs import count_macs
from adaptkit_zoo.cifar_resnet import resnet20_cifar

CONV = LayerShape("conv", 3, 8, kernel=(3, 3), stride=(2, 1), padding=(1, 1), input_size=(8, 8))


def test_shapes_of_a_real_model():
    shapes = layer_shapes(resnet20_cifar(), (torch.zeros(2, 3, 32, 32),))
    assert len(shapes) == 20
    assert shapes["layer2.0.conv1"] == LayerShape(
        "conv", 16, 32, kernel=(3, 3), stride=(2, 2), padding=(1, 1), input_size=(32, 32)
    )
    assert shapes["linear"] == LayerShape("linear", 64, 10)


def test_shapes_of_groups_and_tokens():
    mobile = layer_shapes(torchvision.models.mobilenet_v2(), (torch.zeros(1, 3, 64, 64),))
    assert mobile["features.1.conv.0.0"].groups == 32
    vit = layer_shapes(torchvision.models.vit_b_16(image_size=32), (torch.zeros(1, 3, 32, 32),))
    assert vit["encoder.layers.encoder_layer_0.mlp.0"] == LayerShape("linear", 768, 3072, input_size=(5,))


def test_shapes_leave_the_model_as_it_was():
    model = resnet20_cifar().train()
    model.bn1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer_shapes(model, (torch.randn(2, 3, 32, 32),))
    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_value_is_measured_once_and_kept_in_the_file(tmp_path, monkeypatch):
    path = tmp_path / "latency.json"
    first = LatencyTable(path)
    seconds = first.seconds(CONV)
    assert 0 < seconds < 1
    assert seconds in json.loads(path.read_text()).values()

    monkeypatch.setattr(layer_latency, "median_seconds", lambda *_: pytest.fail("measured again"))
    assert first.seconds(CONV) == seconds
    assert LatencyTable(path).seconds(CONV) == seconds


@pytest.mark.parametrize(
    ("change", "threads", "batch"),
    [({"out_channels": 16}, 1, 1), ({"input_size": (4, 4)}, 1, 1), ({}, 2, 1), ({}, 1, 4), ({"stride": (1, 1)}, 1, 1)],
)
def test_every_part_of_a_shape_has_its_own_entry(tmp_path, change, threads, batch):
    path = tmp_path / "latency.json"
    LatencyTable(path).seconds(CONV)
    LatencyTable(path, threads, batch).seconds(replace(CONV, **change))
    assert len([key for key in json.loads(path.read_text()) if key.startswith("{")]) == 2


def test_what_a_call_takes_that_does_nothing_is_no_time_of_a_layer(monkeypatch):
    seconds = {"nothing": 4e-6, "layer": 10e-6}
    monkeypatch.setattr(layer_latency, "median_seconds", lambda models, _: [seconds[models[0].model.graph.name]])
    assert LatencyTable().seconds(CONV) == pytest.approx(6e-6)
    seconds["layer"] = 3e-6
    assert LatencyTable().seconds(CONV) == pytest.approx(0.15e-6)


def test_the_timed_model_is_the_layer():
    model, feed = layer_latency._chain([CONV], 5)
    out = ort.InferenceSession(model.SerializeToString()).run(None, {"input": feed})[0]
    weight, bias = (torch.from_numpy(_initializer(model, name)) for name in ("weight0", "bias0"))
    want = F.relu(F.conv2d(torch.from_numpy(feed), weight, bias, stride=(2, 1), padding=1))
    np.testing.assert_allclose(out, want.numpy(), rtol=1e-4, atol=1e-4)


def test_the_timed_linear_layer_keeps_its_tokens():
    model, feed = layer_latency._chain([LayerShape("linear", 6, 4, input_size=(7,))], 3)
    out = ort.InferenceSession(model.SerializeToString()).run(None, {"input": feed})[0]
    assert feed.shape == (3, 7, 6)
    assert out.shape == (3, 7, 4)


def test_a_timed_chain_is_its_layers_one_after_the_other():
    parts = [CONV, LayerShape("conv", 8, 5, input_size=CONV.output_size)]
    model, feed = layer_latency._chain(parts, 2)
    out = ort.InferenceSession(model.SerializeToString()).run(None, {"input": feed})[0]
    weights = [torch.from_numpy(_initializer(model, name)) for name in ("weight0", "bias0", "weight1", "bias1")]
    want = F.conv2d(torch.from_numpy(feed), *weights[:2], stride=(2, 1), padding=1)
    want = F.relu(F.conv2d(want, *weights[2:]))
    np.testing.assert_allclose(out, want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_costs_of_a_shape_are_what_the_layer_costs(groups):
    net = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=groups), nn.Linear(7, 5)
    )
    x = torch.zeros(1, 4, 9, 9)
    counted = count_macs(net, (x,)).per_layer
    for name, shape in layer_shapes(net, (x,)).items():
        layer = net.get_submodule(name)
        assert shape.macs == counted[name]
        assert shape.weights == layer.weight.numel()
    assert layer_shapes(net, (x,))["0"].output_size == net[0](x).shape[2:]


def test_median_seconds_times_every_model():
    shapes = [CONV, replace(CONV, in_channels=4)]
    models = [TimedModel(model, {"input": feed}) for model, feed in (layer_latency._chain([s], 1) for s in shapes)]
    times = median_seconds(models)
    assert len(times) == 2
    assert all(value > 0 for value in times)


def test_same_padding_is_resolved():
    net = nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 1))
    assert layer_shapes(nn.Sequential(net), (torch.zeros(1, 3, 9, 9),))["0"].padding == (2, 2)


def test_store_without_a_file_measures_once():
    store = TimeStore()
    values = iter([1.0, 2.0])
    assert [store.get("a", lambda: next(values)) for _ in range(3)] == [1.0, 1.0, 1.0]


def _initializer(model, name):
    from onnx import numpy_helper

    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()
