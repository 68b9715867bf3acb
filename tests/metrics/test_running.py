import pytest
import torch
from torch import nn

from adaptkit.errors import DataError, ModelError
from adaptkit.metrics.running import activations_at, outputs_of


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)).train()


def test_outputs_are_those_of_eval_mode_over_all_batches():
    model, x = network(), torch.randn(600, 3)
    found = outputs_of(model, x)
    assert model.training
    assert torch.allclose(found, model.eval()(x), atol=1e-6)
    assert found.requires_grad is False
    found += 1  # an ordinary tensor, which may be changed


def test_activations_are_those_of_the_layer_and_the_hook_is_gone():
    model, x = network(), torch.randn(300, 3)
    found = activations_at(model, "2", x)
    assert torch.allclose(found, model.eval()[0](x).relu(), atol=1e-6)
    assert not model[2]._forward_hooks


def test_the_hook_is_gone_after_an_error():
    model = network()
    with pytest.raises(RuntimeError):
        activations_at(model, "0", torch.ones(2, 9))
    assert not model[0]._forward_hooks


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.layer(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("nothing", "Twice has no layer 'nothing'; it has layer, idle"),
        ("", "no layer ''"),
        ("layer", "ran 2 times a forward pass; choose one that runs once"),
        ("idle", "ran 0 times a forward pass"),
    ],
)
def test_layers_that_will_not_do(layer, message):
    with pytest.raises(ModelError, match=message):
        activations_at(Twice(), layer, torch.ones(300, 2))


def test_no_input():
    with pytest.raises(DataError, match="there are no samples"):
        outputs_of(nn.Identity(), torch.ones(0, 2))
