"""The engine on whole published models, no layer named or left out."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from adaptkit.pruning.attention import split_all_attention
from adaptkit.pruning.channels import dependency_groups, remove
from adaptkit_zoo.cifar_resnet import resnet20_cifar, resnet56_cifar
from tests.pruning.reference import masked_norms, outputs_of, random_selection, randomize, settled, zeroed

pytestmark = pytest.mark.slow


def _torchvision(name: str, **settings) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, **settings)


def _small_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072)


MODELS = {
    "resnet20_cifar": (resnet20_cifar, 32, 12),
    "resnet56_cifar": (resnet56_cifar, 32, 30),
    "resnet18": (lambda: _torchvision("resnet18"), 64, 12),
    "resnet50": (lambda: _torchvision("resnet50"), 64, 37),
    "vgg16_bn": (lambda: _torchvision("vgg16_bn"), 32, 15),
    "mobilenet_v2": (lambda: _torchvision("mobilenet_v2"), 64, 25),
    "densenet121": (lambda: _torchvision("densenet121"), 64, 120),
    "googlenet": (lambda: _torchvision("googlenet", aux_logits=True, init_weights=False), 64, 61),
    "vit": (_small_vit, 32, 5),
}


@pytest.mark.parametrize("name", MODELS)
def test_pruned_equals_the_original_with_zeros(name: str):
    build, size, groups = MODELS[name]
    torch.manual_seed(0)
    model = randomize(build()).double().eval()
    inputs = (torch.randn(2, 3, size, size, dtype=torch.double),)
    split_all_attention(model)
    graph = dependency_groups(model, inputs)
    assert len(graph.groups) == groups
    assert graph.notes == ()
    for seed, ratio in enumerate((0.1, 0.5, 0.9)):
        selection = random_selection(graph, ratio, seed)
        pruned = remove(copy.deepcopy(model), graph, selection)
        masked, kept = zeroed(model, graph, selection)
        for training in (False, name == "googlenet"):
            settled(pruned, training)
            settled(masked, training)
            with masked_norms(kept):
                wanted = outputs_of(masked, inputs)
            for got, want in zip(outputs_of(pruned, inputs), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
        pruned.train()
        outputs_of(pruned, inputs)
