"""Points where a network can be cut in two: held against what the rest of the network sees."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import DenseNet, MobileNetV2, ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock

from adaptkit.conditional.points import Point, exit_points, spread
from adaptkit.errors import ModelError
from adaptkit.loading.models import load_model
from adaptkit.specs import ModelSpec


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return F.relu(self.left(x) + self.right(x) + x)


class Skipping(nn.Module):
    """The first cell's input is used again at the end, so only what comes before it and the end is a point."""

    def __init__(self, skip=True):
        super().__init__()
        self.skip = skip
        self.stem, self.first, self.second, self.head = nn.Conv2d(3, 8, 3), Cell(), Cell(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.second(self.first(x))
        return self.head((y + x if self.skip else y).mean((2, 3)))


def networks():
    torch.manual_seed(0)
    return {
        "ResNet": ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5),
        "MobileNetV2": MobileNetV2(5, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2]]),
        "DenseNet": DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=5),
        "ViT": VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    }


def depends_on(model, path, x, other):
    """Whether the answer to `other` turns into that to `x` once the module gives what it gives for `x`."""
    kept = []
    module = model.get_submodule(path)
    with torch.no_grad():
        handle = module.register_forward_hook(lambda *call: kept.append(call[2]))
        wanted = model(x)
        handle.remove()
        handle = module.register_forward_hook(lambda *call: kept[0])
        got = model(other)
        handle.remove()
        return float((got - wanted).abs().max() / (model(other) - wanted).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["ResNet", "MobileNetV2", "DenseNet", "ViT"])
def test_everything_later_is_made_of_a_point_and_of_no_other_module(name):
    model = networks()[name].eval()
    for parameter in model.parameters():
        if parameter.dim() == 1 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    x, other = torch.randn(2, 2, 3, 32, 32)
    points = exit_points(model, (x,))
    model, x, other = model.double(), x.double(), other.double()
    assert len(points) >= 2
    paths = {point.path for point in points}
    for point in points:
        assert depends_on(model, point.path, x, other), point.path
    blocks = [path for path, module in model.named_modules() if path.count(".") == 2 and path not in paths][:6]
    assert blocks
    for path in blocks:
        if not any(path.startswith(f"{name}.dropout") for name in paths):
            assert not depends_on(model, path, x, other) or _same_as_a_point(model, path, paths, x), path
    shares = [point.share for point in points]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1


def _same_as_a_point(model, path, paths, x):
    """Whether a module's output goes on unchanged, as that of the last in a Sequential, and a point has its name."""
    found = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found.setdefault(name, out))
        for name in (path, *paths)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return any(found[path] is found[name] for name in paths)


def test_a_connection_across_blocks_leaves_no_point_under_it():
    x = torch.randn(2, 3, 8, 8)
    assert [point.path for point in exit_points(Skipping(False).eval(), (x,))] == ["stem", "first", "second"]
    assert [point.path for point in exit_points(Skipping().eval(), (x,))] == ["stem"]


def test_a_module_that_runs_twice_is_no_point():
    cell = Cell()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), cell, nn.ReLU(), cell, nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    assert "1" not in [point.path for point in exit_points(model, (torch.randn(2, 3, 8, 8),))]


def test_shapes_are_without_the_batch():
    points = exit_points(Skipping(False).eval(), (torch.randn(2, 3, 8, 8),))
    assert [point.shape for point in points] == [(8, 6, 6)] * 3


def test_spread_keeps_the_order_prefers_whole_blocks_and_takes_what_there_is():
    def at(path, share):
        return Point(path, (1,), share)

    blocks = [at("a.relu", 0.32), at("a", 0.335), at("b.c.d", 0.5), at("c", 0.68)]
    assert [point.path for point in spread(blocks, 1)] == ["a"]
    assert [point.path for point in spread(blocks, 2)] == ["a", "b.c.d"]
    assert [point.path for point in spread(blocks[:1], 4)] == ["a.relu"]
    assert spread([], 2) == []


def test_several_inputs_and_layers_without_weights_are_refused():
    with pytest.raises(ModelError, match="one input; this one takes 2"):
        exit_points(nn.Bilinear(3, 4, 5), (torch.zeros(2, 3), torch.zeros(2, 4)))
    with pytest.raises(ModelError, match="no layer with weights"):
        exit_points(nn.Sequential(nn.ReLU(), nn.Softmax(1)).eval(), (torch.zeros(2, 3),))


def test_an_example_with_unusual_strides_has_the_same_points():
    network = load_model(ModelSpec(zoo="resnet_digits"))
    usual, unusual = torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, 1).permute(0, 3, 1, 2)
    there = [point.path for point in exit_points(network, (usual,))]
    assert [point.path for point in exit_points(network, (unusual,))] == there != []
