import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.pruning import StructuredPruning
from adaptkit.pruning.channels import dependency_groups, remove
from adaptkit.pruning.groups import Group, Slice
from adaptkit.pruning.select import candidate
from adaptkit.pruning.sensitivity import Sensitivity, zeroed
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit_zoo.digits import resnet_digits

X = torch.zeros(2, 1, 8, 8)


def _data(samples=48):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, 1, 8, 8, generator=generator), torch.randint(10, (samples,), generator=generator)


def _lively():
    torch.manual_seed(3)
    model = resnet_digits()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def _loss_on_batch_statistics(model, x, y):
    """Run normalizations in training mode, on a copy: an independent way to the statistics of the batch."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


def test_zeros_cost_what_the_cut_costs():
    model, (x, y) = _lively(), _data()
    graph = dependency_groups(model, (X,))
    generator = np.random.default_rng(0)
    ones = [candidate(generator.random(group.size).tolist(), group.width, 8, 8) for group in graph.groups]
    before = state_sha256(model)
    sensitivity = Sensitivity(model, graph.groups, (x, y), F.cross_entropy)
    found = sensitivity.rises(ones, [()] * len(ones))
    assert state_sha256(model) == before
    whole = _loss_on_batch_statistics(model, x, y)
    for number, (group, one, curve) in enumerate(zip(graph.groups, ones, found, strict=True)):
        rises = []
        for left in one.levels():
            small = copy.deepcopy(model)
            gone = np.argsort(one.scores)[: group.size - left].tolist()
            remove(small, dependency_groups(small, (X,)), {number: gone} if gone else {})
            rises.append(_loss_on_batch_statistics(small, x, y) - whole)
        np.testing.assert_allclose(curve[one.levels()], np.maximum.accumulate(rises), atol=1e-5)
    assert max(curve[one.levels()[-1]] for one, curve in zip(ones, found, strict=True)) > 0.01


def test_the_others_are_cut_while_one_is_measured():
    model, data = _lively(), _data()
    graph = dependency_groups(model, (X,))
    first, second = graph.groups[:2]
    ones = [candidate(list(range(group.size)), group.width, 8, 8) for group in (first, second)]
    gone = [list(range(first.size // 2)), list(range(second.size // 4))]
    sensitivity = Sensitivity(model, [first, second], data, F.cross_entropy)
    rises = []
    for left in ones[1].levels():
        small = copy.deepcopy(model)
        remove(small, dependency_groups(small, (X,)), {0: gone[0], 1: range(second.size - left)})
        rises.append(_loss_on_batch_statistics(small, *data))
    rises = np.maximum.accumulate(np.array(rises) - rises[0])
    np.testing.assert_allclose(sensitivity.rises(ones, gone)[1][ones[1].levels()], rises, atol=1e-5)
    alone = sensitivity.rises(ones, [(), ()])[1][ones[1].levels()]
    assert np.abs(alone - rises).max() > 1e-3


def test_at_most_eight_cuts_of_a_group_are_measured_and_lines_drawn_between():
    model, (x, y) = _lively(), _data()
    graph = dependency_groups(model, (X,))
    number = max(range(len(graph.groups)), key=lambda n: graph.groups[n].size)
    group = graph.groups[number]
    one = candidate(list(range(group.size)), 1, 1, 1)
    calls = []

    def loss(output, target):
        calls.append(1)
        return F.cross_entropy(output, target)

    (curve,) = Sensitivity(model, [group], (x, y), loss).rises([one], [()])
    assert len(calls) == 1 + 8
    assert np.isnan(curve[0])
    assert (curve[group.size], len(curve)) == (0, group.size + 1)
    assert (np.diff(curve[1:]) <= 0).all()
    assert np.count_nonzero(np.abs(np.diff(curve[1:], 2)) > 1e-9) <= 8


@hypothesis_settings(deadline=None)
@given(units=st.sets(st.integers(0, 3)), dim=st.integers(0, 1))
def test_zeros_are_where_the_units_are_and_go_again_after_an_error(units, dim):
    indices = np.arange(8).reshape(4, 2)
    weight = torch.ones(8, 8)
    group = Group("w", (Slice("w", dim, indices), Slice("buffer", 0, indices)), 4)
    wanted = weight.clone()
    for unit in units:
        wanted.select(dim, 2 * unit).zero_()
        wanted.select(dim, 2 * unit + 1).zero_()

    def fail():
        with zeroed(group, sorted(units), {"w": weight}):
            assert torch.equal(weight, wanted)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(weight, torch.ones(8, 8))


def test_a_group_whose_units_do_nothing_is_cut_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        model[3].weight[:, 8:] = 0  # all but eight features of the first layer are not looked at
        model[1].weight[:8] /= 100  # though their own weights are large
    context = Context(example_inputs=(X,), calibration=_data())
    settings = {"macs": 0.325, "importance": "taylor"}
    pruned = StructuredPruning(ranking="sensitivity", **settings).apply(copy.deepcopy(model), context)
    assert (pruned[1].out_features, pruned[3].out_features) == (8, 32)
    evenly = StructuredPruning(ranking="per_layer", **settings).apply(copy.deepcopy(model), context)
    assert evenly[3].out_features < 32


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (None, "ranking: sensitivity needs calibration data; give some, or use global"),
        ([(torch.zeros(1, 1, 8, 8), torch.zeros(1).long())], "needs a batch of at least two calibration samples"),
    ],
)
def test_data_that_is_missing_is_asked_for(calibration, message):
    with pytest.raises(DataError, match=message):
        StructuredPruning(ranking="sensitivity").apply(
            resnet_digits(), Context(example_inputs=(X,), calibration=calibration)
        )
