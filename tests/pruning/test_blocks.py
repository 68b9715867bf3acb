"""Finding residual blocks, without a word about any architecture."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from adaptkit.pruning.blocks import has_skip, residual_blocks, signature
from adaptkit_zoo.cifar_resnet import BasicBlock, resnet20_cifar


class Residual(nn.Module):
    """y = activation(scale · x + f(x)), in a few variants."""

    def __init__(self, branch, kind="plain"):
        super().__init__()
        self.branch = branch
        self.kind = kind

    def forward(self, x):
        branch = self.branch(x)
        return {
            "plain": lambda: x + branch,
            "relu": lambda: F.relu(branch + x),
            "in place": lambda: branch.add_(x),
            "concatenated": lambda: torch.cat([x, branch], 1)[:, : x.shape[1]],
            "gated": lambda: x * branch,
            "scaled": lambda: torch.add(branch, x, alpha=2),
            "negated": lambda: branch - x,
            "squared": lambda: x * x + branch,
            "no branch": lambda: x + self.branch.weight.sum(),
            "twice": lambda: x + branch + self.branch(x + branch),
        }[self.kind]()


def conv(channels=4):
    return nn.Conv2d(channels, channels, 3, padding=1)


@pytest.mark.parametrize(
    ("kind", "skips"),
    [
        ("plain", True),
        ("relu", True),
        ("in place", True),
        ("twice", True),
        ("concatenated", False),
        ("gated", False),
        ("scaled", False),
        ("negated", False),
        ("squared", False),
        ("no branch", False),
    ],
)
def test_only_an_addition_of_the_input_itself_is_a_skip(kind, skips):
    assert has_skip(Residual(conv(), kind), torch.randn(2, 4, 6, 6)) is skips


def test_a_block_that_cannot_be_captured_is_no_block():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(conv())

        def forward(self, x):
            return x + self.inner(x) if float(x.sum()) > 0 else x

    assert not has_skip(Dynamic(), torch.randn(2, 4, 6, 6))


def test_cifar_resnet_keeps_only_the_blocks_that_change_the_shape():
    found = residual_blocks(resnet20_cifar(), (torch.zeros(2, 3, 32, 32),))
    assert list(found) == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    assert found["layer2.1"].shape == (2, 32, 16, 16)


@pytest.mark.parametrize(
    ("build", "count", "first"),
    [
        (torchvision.models.resnet18, 5, "layer1.0"),
        (torchvision.models.resnet50, 12, "layer1.1"),
        (torchvision.models.mobilenet_v2, 10, "features.3"),
        (torchvision.models.convnext_tiny, 18, "features.1.0"),
        (torchvision.models.efficientnet_b0, 9, "features.2.1"),
        (torchvision.models.regnet_y_400mf, 12, "trunk_output.block2.block2-1"),
        (lambda: torchvision.models.vit_b_16(image_size=64), 12, "encoder.layers.encoder_layer_0"),
        (torchvision.models.densenet121, 0, None),
        (torchvision.models.vgg11, 0, None),
    ],
)
def test_blocks_of_torchvision_models(build, count, first):
    found = residual_blocks(build(), (torch.zeros(1, 3, 64, 64),))
    assert len(found) == count
    assert next(iter(found), None) == first


def test_every_block_that_is_found_can_go():
    model = torchvision.models.mobilenet_v2().eval()
    x = torch.randn(1, 3, 64, 64)
    for name in residual_blocks(model, (x,)):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    assert model(x).shape == (1, 1000)


def test_a_stage_is_no_block_but_a_block_with_an_inner_skip_is():
    stage = nn.Sequential(Residual(conv()), Residual(conv()))
    nested = Residual(nn.Sequential(Residual(conv()), conv()))
    lone = nn.Sequential(Residual(conv()))
    found = residual_blocks(nn.Sequential(stage, nested, lone), (torch.zeros(1, 4, 5, 5),))
    assert list(found) == ["0.0", "0.1", "1", "2.0"]


def test_targets_choose_the_stage():
    stage = nn.Sequential(Residual(conv()), Residual(conv()))
    model = nn.Sequential(stage, Residual(conv()))
    x = (torch.zeros(1, 4, 5, 5),)
    assert list(residual_blocks(model, x, targets=["0"])) == ["0"]
    assert list(residual_blocks(model, x, ignore=["0*"])) == ["1"]


def test_a_module_called_twice_or_with_two_tensors_is_no_block():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Residual(conv())

        def forward(self, x):
            return self.block(self.block(x))

    assert residual_blocks(Twice(), (torch.zeros(1, 4, 5, 5),)) == {}


def test_finding_leaves_the_model_as_it_was():
    model = resnet20_cifar().train()
    model.bn1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    residual_blocks(model, (torch.randn(2, 3, 32, 32),))
    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_signature_tells_sizes_and_settings_apart():
    x = torch.zeros(2, 4, 5, 5)
    assert signature(BasicBlock(4, 4), x) == signature(BasicBlock(4, 4), x + 1)
    assert signature(BasicBlock(4, 4), x) != signature(BasicBlock(4, 4), torch.zeros(2, 4, 6, 6))
    strided = BasicBlock(4, 4)
    strided.stride = 2
    assert signature(BasicBlock(4, 4), x) != signature(strided, x)
