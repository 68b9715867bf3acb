"""New statistics of normalizations after surgery."""

import pytest
import torch
from torch import nn

from adaptkit.factorization import SvdFactorization
from adaptkit.pruning import MagnitudePruning, StructuredPruning
from adaptkit.statistics import renew_statistics
from adaptkit.technique import Context
from adaptkit_zoo.digits import resnet_digits

X = torch.randn(128, 3, 6, 6)


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers)


def test_they_are_the_means_and_variances_of_what_the_layer_is_given():
    net = _net().eval()
    normalized = nn.functional.batch_norm(net[0](X), None, None, training=True)
    wanted = net[5](torch.relu(normalized).flatten(1)).detach()
    with torch.no_grad():
        net[0].weight.mul_(5)
    context = Context((X[:2],), calibration=(X, wanted), loss=nn.functional.mse_loss)
    renew_statistics(net, context)
    given = net[0](X)
    torch.testing.assert_close(net[1].running_mean, given.mean((0, 2, 3)))
    torch.testing.assert_close(net[1].running_var, given.var((0, 2, 3)))
    assert context.notes[0].startswith("statistics of 1 normalizations measured anew on 128 calibration samples")
    assert (net.training, net[1].training, net[1].momentum) == (False, False, 0.1)


def test_several_batches_are_averaged():
    net = _net().eval()

    def loss(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return 0 * output.sum() - net[1].num_batches_tracked  # the new ones win

    renew_statistics(net, Context((X[:2],), calibration=[(X[:64], X[:64]), (X[64:], X[64:])], loss=loss))
    parts = [net[0](part) for part in (X[:64], X[64:])]
    torch.testing.assert_close(net[1].running_mean, sum(part.mean((0, 2, 3)) for part in parts) / 2)


def test_they_stay_where_the_loss_would_rise():
    net = _net().eval()
    wanted = net(X).detach()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    context = Context((X[:2],), calibration=(X, wanted), loss=nn.functional.mse_loss)
    renew_statistics(net, context)
    assert context.notes == []
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "calibration",
    [None, (X[:63], torch.zeros(63, dtype=torch.long)), (X, torch.zeros(128, 5))],
    ids=["no data", "too few samples", "nothing to judge by"],
)
def test_nothing_happens_without_enough_to_judge(calibration):
    net = _net().eval()
    with torch.no_grad():
        net[0].weight.mul_(5)
    context = Context((X[:2],), calibration=calibration)
    renew_statistics(net, context)
    assert torch.equal(net[1].running_mean, torch.zeros(4))
    assert context.notes == []


@pytest.mark.parametrize(
    "technique",
    [
        StructuredPruning(macs=0.6, round_to=1, min_channels=2),
        MagnitudePruning(sparsity=0.7),
        SvdFactorization(macs=0.6, undo_slower=False),
    ],
    ids=lambda technique: technique.name,
)
def test_surgery_without_training_renews_them(technique):
    torch.manual_seed(0)
    model = resnet_digits()
    x = torch.rand(128, 1, 8, 8)
    y = model.eval()(x).argmax(1)

    def loss(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return 0 * output.sum() - model.stem[1].num_batches_tracked  # the new ones win

    context = Context((x[:2],), calibration=(x, y), loss=loss)
    technique.apply(model, context)
    assert any("measured anew" in note for note in context.notes)


def test_a_model_of_several_inputs_keeps_them():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 32)

        def forward(self, a, b):
            return self.head(self.norm(a + b))

    model, x = Two().eval(), torch.randn(64, 32)
    context = Context((x[:2], x[:2]), calibration=((x, x), torch.zeros(64, dtype=torch.long)))
    SvdFactorization(macs=0.6, undo_slower=False).apply(model, context)
    assert any("1 of 1 layers factorized" in note for note in context.notes)
    assert torch.equal(model.norm.running_mean, torch.zeros(32))
