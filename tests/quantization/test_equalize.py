import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.quantization.equalize import equalize, equalizing_factors
from adaptkit.quantization.plan import ExampleInput
from adaptkit.quantization.simulate import captured_and_folded
from tests.quantization.nets import Residual, quantize, settled


def lopsided(model: nn.Module) -> nn.Module:
    """Scale the normalizations' channels as training sometimes does: by factors from 1/30 to 30."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            factors = torch.logspace(-1.5, 1.5, module.num_features)
            module.weight.data *= factors
            module.bias.data *= factors
    return model


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.second = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 3, groups=2)
        self.third, self.fourth = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.relu(self.second(F.relu(self.depthwise(x))))
        return self.fourth(F.relu(self.third(x.mean((2, 3)))))


def test_factors_make_both_ranges_equal():
    first, second = torch.rand(9) + 0.01, torch.rand(9) + 0.01
    factors = equalizing_factors(first, second)
    torch.testing.assert_close(first / factors, second * factors)
    assert equalizing_factors(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("build", "pairs"), [(Chain, 3), (Residual, 0)])
def test_outputs_stay(build, pairs):
    model, x = lopsided(settled(build(), 3, 32, 32)), torch.randn(4, 3, 32, 32)
    expected = model(x).detach()
    captured = captured_and_folded(model, (ExampleInput((2, 3, 32, 32)),))
    assert equalize(captured, model) == pairs
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_ranges_are_equal_afterwards():
    model = lopsided(settled(Chain(), 3, 32, 32))
    equalize(captured_and_folded(model, (ExampleInput((2, 3, 32, 32)),)), model)
    factor = model.norm.weight * torch.rsqrt(model.norm.running_var + model.norm.eps)
    first = (model.first.weight * factor.reshape(-1, 1, 1, 1)).detach().abs().amax((1, 2, 3))
    second = model.depthwise.weight.detach().abs().amax((1, 2, 3))
    third = model.second.weight.detach().reshape(2, 3, 4, -1).abs().amax((1, 3)).flatten()
    torch.testing.assert_close(first, second, rtol=0.01, atol=0)
    torch.testing.assert_close(second, third, rtol=0.01, atol=0)


def test_one_scale_a_layer_gets_by_with_equal_ranges():
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    errors = []
    for wanted in (False, True):
        model = lopsided(settled(Chain(), 3, 32, 32))
        exact = model(x).detach()
        quantized = quantize(model, x, per_channel=False, equalize=wanted)
        errors.append(float((quantized(x).detach() - exact).square().mean()))
    assert errors[1] < errors[0] / 2
