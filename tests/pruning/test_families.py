"""The engine on small members of torchvision's families, those included that other tools need exceptions for."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from adaptkit.pruning.channels import dependency_groups, remove
from tests.pruning.reference import masked_norms, outputs_of, random_selection, randomize, zeroed

_swin = partial(models.SwinTransformer, [4, 4], 24, [2, 1], [2, 4], [4, 4], num_classes=5)

FAMILIES = {
    "convnext": partial(models.ConvNeXt, [CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 1)], num_classes=5),
    "densenet": partial(models.DenseNet, 6, (2, 2), 10, num_classes=5),
    "efficientnet": partial(
        models.EfficientNet, [FusedMBConvConfig(2, 3, 1, 8, 8, 1), MBConvConfig(4, 3, 2, 8, 12, 2)], 0.1, num_classes=5
    ),
    "maxvit": partial(models.MaxVit, (32, 32), 12, 2, [12, 24], [2, 1], 6, 0.1, num_classes=5),
    "regnet": partial(models.RegNet, BlockParams.from_init_params(4, 16, 16.0, 2.0, 8, se_ratio=0.25), num_classes=5),
    "shufflenet_v2": partial(models.ShuffleNetV2, [2, 2, 1], [8, 16, 24, 32, 20], num_classes=5),
    "swin": _swin,
    "swin_v2": partial(_swin, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "vit": partial(models.VisionTransformer, 32, 8, 2, 4, 24, 40, num_classes=5),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_every_group_goes(family: str):
    torch.manual_seed(0)
    model: nn.Module = randomize(FAMILIES[family]()).double().eval()
    inputs = (torch.randn(2, 3, 32, 32, dtype=torch.double),)
    graph = dependency_groups(model, inputs)
    assert graph.notes == ()
    assert len(graph.groups) >= 3
    selection = random_selection(graph, 0.5, seed=0)
    masked, kept = zeroed(model, graph, selection)
    before = sum(p.numel() for p in model.parameters())
    remove(model, graph, selection)
    with masked_norms(kept):
        wanted = outputs_of(masked, inputs)
    for got, want in zip(outputs_of(model, inputs), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    assert sum(p.numel() for p in model.parameters()) < 0.6 * before
    model.train()(*inputs).square().sum().backward()


@pytest.mark.parametrize("family", ["swin", "swin_v2", "maxvit"])
def test_every_group_can_be_cut_alone(family: str):
    """Attention that divides channels by heads follows where both are cut alike: what only seems to, must be tied."""
    torch.manual_seed(0)
    model: nn.Module = FAMILIES[family]().eval()
    inputs = (torch.randn(2, 3, 32, 32),)
    graph = dependency_groups(model, inputs)
    for number in range(len(graph.groups)):
        small = remove(copy.deepcopy(model), graph, {number: [0]})
        assert small(*inputs).shape == (2, 5)
