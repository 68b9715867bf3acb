import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.quantization.capture import capture
from adaptkit.quantization.fold import fold_graph
from adaptkit.quantization.plan import QuantizationPlan
from adaptkit.quantization.simulate import Simulator
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from tests.quantization.nets import Residual, settled


def folded(model: nn.Module, x: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Fold the graph of a model; how many normalizations are left, and what it computes."""
    captured = capture(model, (x,))
    fold_graph(captured)
    left = sum(node.target is F.batch_norm for node in captured.graph.nodes)
    return left, Simulator(captured, QuantizationPlan()).run(model, (x,))


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (Residual(), 0),
        (resnet20_cifar(), 0),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6, affine=False)), 0),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 2),
    ],
)
def test_folding_keeps_the_outputs(model, left):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_var.uniform_(0.5, 2)
    size = 8 if isinstance(model, nn.Sequential) else 32
    if not isinstance(model, nn.Sequential) or left:
        settled(model, 3, size, size)
    model.eval()
    x = torch.randn(4, 3, size, size)
    norms, output = folded(model, x)
    assert norms == left
    torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-4)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.layer(self.first(self.layer(x))))


def test_a_layer_that_runs_twice_is_folded_for_each_time():
    model = settled(Twice(), 3, 8, 8)
    x = torch.randn(2, 3, 8, 8)
    norms, output = folded(model, x)
    assert norms == 0
    torch.testing.assert_close(output, model(x))


class Tokens(nn.Module):
    """A normalization over tokens, of which there are as many as the linear layer has outputs."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.layer(x))


def test_a_normalization_over_tokens_is_not_folded_into_the_features():
    model = settled(Tokens(), 5, 3)
    x = torch.randn(2, 5, 3)
    norms, output = folded(model, x)
    assert norms == 1
    torch.testing.assert_close(output, model(x))
