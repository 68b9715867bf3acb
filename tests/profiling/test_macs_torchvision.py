"""MACs of every classification model of torchvision, against PyTorch's counter and against what torchvision says."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from adaptkit.profiling.macs import count_macs

NAMES = models.list_models(module=models)
INITIALIZERS = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
OWN_INITIALIZERS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


@pytest.fixture
def _values_do_not_matter(monkeypatch):
    """Leave parameters as they are allocated: random numbers for billions of them take minutes."""
    for name in INITIALIZERS:
        monkeypatch.setattr(nn.init, name, lambda tensor, *_args, **_named: tensor)


def build(name):
    """Make a model without memory, and an image of the size of its first weights."""
    weights = next(iter(models.get_model_weights(name)))
    size = weights.transforms().crop_size[0]
    sized = {"image_size": size} if name.startswith("vit_") else {}
    model = models.get_model(name, weights=None, **sized, **OWN_INITIALIZERS.get(name, {}))
    return model.eval().to("meta"), torch.zeros(1, 3, size, size, device="meta"), weights.meta["_ops"]


@pytest.mark.slow
@pytest.mark.usefixtures("_values_do_not_matter")
@pytest.mark.parametrize("name", NAMES)
def test_three_counts_agree(name):
    model, image, published = build(name)
    found = count_macs(model, (image,))
    with FlopCounterMode(display=False) as independent, torch.no_grad():
        model(image)
    assert found.total == found.cross_check == independent.get_total_flops() // 2
    # torchvision writes thousandths of 10⁹ MACs (and calls them GFLOPS).
    assert found.total / 1e9 == pytest.approx(published, abs=0.00051)
    assert found.uncounted == ()


@pytest.mark.slow
def test_fused_attention_of_a_real_run():
    model = models.vit_b_32(weights=None).eval()
    found = count_macs(model, (torch.zeros(1, 3, 224, 224),))
    assert found.total == found.cross_check == 4_409_186_304
    assert found.uncounted == ()
