"""Whole networks against their files, to the last bit of every integer."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from adaptkit.quantization.integers import Divided, IntegerLayer, IntegerOperation, IntegerPool, IntegerProduct
from adaptkit_zoo.cifar_mobilenet import mobilenet_v2_cifar
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from tests.quantization.nets import Residual, exported, quantize, run, settled


class Scaled(nn.Module):
    """Products of two tensors, means over windows, a clip that is no grid's edge, linear layers in a row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        self.hidden, self.head = nn.Linear(8 * 36, 32), nn.Linear(32, 5)

    def forward(self, x):
        x = F.relu(self.first(x)) * self.second(x)
        x = F.avg_pool2d(torch.clamp(self.third(x), -0.1, 0.4), 3, 2)
        return self.head(F.relu(self.hidden(x[:, :, :6, :6].flatten(1))))


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(1))


def assert_same(quantized: nn.Module, x: torch.Tensor) -> None:
    # Only the last layer's floats may differ, by their own last bits: one integer elsewhere makes far more of it.
    file = run(exported(quantized, x), x)
    np.testing.assert_allclose(quantized(x).detach().numpy(), file, atol=2e-6 * np.abs(file).max())


def operations(quantized: nn.Module) -> list[nn.Module]:
    return [child for child in quantized.simulator.exact.children() if isinstance(child, (IntegerOperation, Divided))]


@pytest.mark.parametrize("settings", [{}, {"activations": "int8"}, {"symmetric": True}, {"rounding": "learned"}])
def test_a_residual_network(settings):
    x = images()
    assert_same(quantize(settled(Residual(), 3, 32, 32), x, **settings), x)


def test_products_windows_and_linear_layers():
    x = images(20)
    quantized = quantize(Scaled().eval(), x)
    assert {IntegerLayer, IntegerProduct, IntegerPool} <= {type(found) for found in operations(quantized)}
    assert_same(quantized, x)


@pytest.mark.parametrize("make", [resnet20_cifar, pytest.param(mobilenet_v2_cifar, marks=pytest.mark.slow)])
def test_networks_for_small_images(make):
    x = images()
    quantized = quantize(settled(make(), 3, 32, 32), x)
    layers = sum(isinstance(found, IntegerLayer) for found in operations(quantized))
    assert layers == sum(isinstance(module, nn.Conv2d) for module in quantized.model.modules())
    assert_same(quantized, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_networks_of_torchvision_without_float_operations(name):
    x = images(64)
    assert_same(quantize(settled(getattr(torchvision.models, name)(weights=None), 3, 64, 64), x), x)


def test_training_goes_through_the_float_graph():
    x = images()
    quantized = quantize(settled(Residual(), 3, 32, 32), x).train()
    assert torch.equal(quantized(x), quantized.simulator.run(quantized.model, (x,)))


def test_gradients_in_evaluation_are_those_of_training():
    x = images()
    quantized = quantize(settled(Residual(), 3, 32, 32), x)
    found = []
    for mode in (True, False):
        inputs = x.clone().requires_grad_()
        quantized.train(mode)(inputs).square().sum().backward()
        found.append(inputs.grad)
    assert F.cosine_similarity(found[0].flatten(), found[1].flatten(), 0) > 0.99


def test_a_clip_that_cuts_off_levels_stays_in_floats():
    x = images(20)
    narrow = Scaled().eval()
    quantized = quantize(narrow, x)
    wide = [key for key in quantized.plan.tensors if key.startswith("clamp")]
    grid = quantized.plan.tensors[wide[0]]
    tensors = dict(quantized.plan.tensors) | {wide[0]: type(grid)((2 * grid.scale[0],), grid.zero_point, signed=False)}
    wider = quantized.replanned(type(quantized.plan)(tensors, quantized.plan.inputs))
    assert len([found for found in operations(wider) if isinstance(found, Divided)]) == 1 + len(
        [found for found in operations(quantized) if isinstance(found, Divided)]
    )
    assert wider(x).shape == (16, 5)
