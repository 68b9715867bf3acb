import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.pruning import importance, importance_data
from adaptkit.pruning.channels import dependency_groups
from adaptkit.pruning.group_lasso import group_lasso


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
    products = importance_data.taylor_products(net, [(x[:3], y[:3]), (x[3:], y[3:])], F.cross_entropy)
    want = []
    for rows in (slice(0, 3), slice(3, 6)):
        net.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        values = {name: (p * p.grad).detach() for name, p in net.named_parameters()}
        want.append(np.square(_by_hand(net, values)))
    np.testing.assert_allclose(importance.taylor(group, products), np.mean(want, axis=0), rtol=1e-4)


def test_taylor_leaves_mode_and_gradients_alone(net):
    net.train()
    importance_data.taylor_products(net, (torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.long)), F.cross_entropy)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_dead_unit_scores_zero_everywhere(net, group):
    for tensor in (net[0].weight, net[0].bias, net[1].weight, net[1].bias):
        tensor.data[2] = 0
    net[4].weight.data[:, 8:12] = 0
    data = (torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.long))
    products = importance_data.taylor_products(net, data, F.cross_entropy)
    scales = importance.norm_scales(net)
    scores = [importance.l1(group, _tensors(net)), importance.group_l2(group, _tensors(net))]
    scores += [importance.bn_scale(group, _tensors(net), scales), importance.taylor(group, products)]
    scores += [importance.lamp(group, _tensors(net))]
    scores += [importance.activation(group, importance_data.activation_means(net, data), _tensors(net))]
    for one in scores:
        assert one[2] == 0
        assert (one[[0, 1, 3]] > 0).all()


def test_lamp_divides_by_all_that_is_no_smaller(net, group):
    squares = importance.group_l2(group, _tensors(net)).square().tolist()
    want = [mine / sum(other for other in squares if other >= mine) for mine in squares]
    np.testing.assert_allclose(importance.lamp(group, _tensors(net)), want, rtol=1e-5)
    assert importance.lamp(group, _tensors(net)).max() == 1


def test_fpgm_sums_the_distances_to_all_other_filters(net, group):
    filters = net[0].weight.detach().flatten(1).numpy()
    want = [sum(float(np.sqrt(np.square(mine - other).sum())) for other in filters) for mine in filters]
    np.testing.assert_allclose(importance.fpgm(group, _tensors(net)), want, rtol=1e-5)


def test_obd_is_half_the_curvature_times_the_square(net, group):
    curvature = {name: torch.rand_like(p) for name, p in net.named_parameters()}
    values = {name: 0.5 * curvature[name] * p.detach().square() for name, p in net.named_parameters()}
    np.testing.assert_allclose(importance.obd(group, _tensors(net), curvature), _by_hand(net, values), rtol=1e-5)


class _Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, x):
        return x * self.scale


def test_a_diagonal_hessian_is_found_exactly():
    x = torch.randn(6, 3)
    found = importance_data.hessian_diagonal(
        _Scaled(), (x, torch.zeros(6, 3)), lambda output, y: (output - y).square().sum() / 2, seed=0, draws=1
    )
    torch.testing.assert_close(found["scale"], x.square().sum(0))


def test_the_hessian_estimate_approaches_the_true_diagonal():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(8, 3, dtype=torch.double), torch.randint(2, (8,))
    found = importance_data.hessian_diagonal(net, (x, y), F.cross_entropy, seed=0, draws=2000)
    named = {name: p.detach() for name, p in net.named_parameters()}

    def loss(weight):
        return F.cross_entropy(torch.func.functional_call(net, {**named, "0.weight": weight}, (x,)), y)

    exact = torch.autograd.functional.hessian(loss, named["0.weight"]).reshape(12, 12).diagonal().reshape(4, 3)
    torch.testing.assert_close(found["0.weight"], exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_activation_means_are_of_what_a_layer_is_given(net, group):
    x = torch.randn(6, 3, 4, 4)
    means = importance_data.activation_means(net, [(x[:3], torch.zeros(3)), (x[3:], torch.zeros(3))])
    given = net[:4](x).detach()
    torch.testing.assert_close(means["4.weight"], given.abs().mean(0))
    torch.testing.assert_close(means["0.weight"], x.abs().mean((0, 2, 3)))
    want = given.abs().reshape(6, 4, 4).mean((0, 2))
    torch.testing.assert_close(importance.activation(group, means, _tensors(net)), want)
    torch.testing.assert_close(
        importance.activation(group, {}, _tensors(net)), importance.group_l2(group, _tensors(net))
    )


def test_group_lasso_is_the_sum_of_the_norms_of_whole_units(net, group):
    norms = importance.group_l2(group, _tensors(net))
    per_unit = 27 + 1 + 2 + 3 * 4
    want = float(norms.sum()) * per_unit**0.5
    assert float(group_lasso([group], _tensors(net))) == pytest.approx(want, rel=1e-4)


def test_group_lasso_has_a_gradient_at_zero():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    groups = dependency_groups(net, (torch.zeros(2, 2),)).groups
    group_lasso(groups, dict(net.named_parameters())).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_random_depends_on_the_seed_alone(group):
    one, same, other = (importance.random(group, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_normalized_scores_do_not_depend_on_the_scale_of_the_weights():
    scores = torch.rand(7)
    torch.testing.assert_close(importance.normalized(scores), importance.normalized(1000 * scores))
    assert importance.normalized(torch.zeros(3)).tolist() == [1, 1, 1]
