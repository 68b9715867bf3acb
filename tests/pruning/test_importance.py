import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.pruning import importance
from adaptkit.pruning.channels import dependency_groups


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()


@pytest.fixture
def group(net):
    graph = dependency_groups(net, (torch.zeros(2, 3, 4, 4),))
    assert len(graph.groups) == 1
    return graph.groups[0]


def _tensors(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def _by_hand(net: nn.Module, values: dict[str, torch.Tensor]) -> list[float]:
    return [
        sum(float(values[name][unit].sum()) for name in ("0.weight", "0.bias", "1.weight", "1.bias"))
        + float(values["4.weight"][:, 4 * unit : 4 * unit + 4].sum())
        for unit in range(4)
    ]


def test_group_l2_sums_all_that_goes_with_a_unit(net, group):
    nn.init.normal_(net[1].weight)
    squares = {name: tensor.square() for name, tensor in _tensors(net).items()}
    np.testing.assert_allclose(importance.group_l2(group, _tensors(net)), np.sqrt(_by_hand(net, squares)), rtol=1e-5)


def test_l1_looks_at_the_weights_that_make_the_channels(net, group):
    want = net[0].weight.detach().abs().sum((1, 2, 3))
    torch.testing.assert_close(importance.l1(group, _tensors(net)), want)


def test_bn_scale_looks_at_the_scales(net, group):
    net[1].weight.data = torch.tensor([0.5, -2.0, 0.1, 1.0])
    scores = importance.bn_scale(group, _tensors(net), importance.norm_scales(net))
    torch.testing.assert_close(scores, torch.tensor([0.5, 2.0, 0.1, 1.0]))
    torch.testing.assert_close(
        importance.bn_scale(group, _tensors(net), frozenset()), importance.group_l2(group, _tensors(net))
    )


def test_taylor_squares_the_sum_of_weight_times_gradient(net, group):
    x, y = torch.randn(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    products = importance.taylor_products(net, [(x[:3], y[:3]), (x[3:], y[3:])], F.cross_entropy)
    want = []
    for rows in (slice(0, 3), slice(3, 6)):
        net.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        values = {name: (p * p.grad).detach() for name, p in net.named_parameters()}
        want.append(np.square(_by_hand(net, values)))
    np.testing.assert_allclose(importance.taylor(group, products), np.mean(want, axis=0), rtol=1e-4)


def test_taylor_leaves_mode_and_gradients_alone(net):
    net.train()
    importance.taylor_products(net, (torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.long)), F.cross_entropy)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_dead_unit_scores_zero_everywhere(net, group):
    for tensor in (net[0].weight, net[0].bias, net[1].weight, net[1].bias):
        tensor.data[2] = 0
    net[4].weight.data[:, 8:12] = 0
    data = (torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.long))
    products = importance.taylor_products(net, data, F.cross_entropy)
    scales = importance.norm_scales(net)
    scores = [importance.l1(group, _tensors(net)), importance.group_l2(group, _tensors(net))]
    scores += [importance.bn_scale(group, _tensors(net), scales), importance.taylor(group, products)]
    for one in scores:
        assert one[2] == 0
        assert (one[[0, 1, 3]] > 0).all()


def test_random_depends_on_the_seed_alone(group):
    assert torch.equal(importance.random(group, 1), importance.random(group, 1))
    assert not torch.equal(importance.random(group, 1), importance.random(group, 2))


def test_normalized_scores_do_not_depend_on_the_scale_of_the_weights():
    scores = torch.rand(7)
    torch.testing.assert_close(importance.normalized(scores), importance.normalized(1000 * scores))
    assert importance.normalized(torch.zeros(3)).tolist() == [1, 1, 1]
