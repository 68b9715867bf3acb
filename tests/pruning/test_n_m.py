import copy
import itertools

import pytest
import torch
from torch import nn

from adaptkit.errors import DataError, TargetError
from adaptkit.pruning import NMPruning
from adaptkit.pruning.masks import n_m_mask
from adaptkit.pruning.permutation import _pairs, find_permutation, kept_magnitude, permute_channels
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from tests.pruning import networks

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def _kept(weight: torch.Tensor, n: int, m: int) -> float:
    return float((weight.abs() * n_m_mask(weight, n, m)).sum())


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (5, 8)])
def test_kept_magnitude_is_that_of_the_mask(n, m):
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    found = kept_magnitude(weight.abs().reshape(6, -1, m).movedim(1, 0), n).sum()
    assert float(found) == pytest.approx(_kept(weight, n, m), rel=1e-5)


@pytest.mark.parametrize("stripes", [2, 3, 4, 7, 8])
def test_every_stripe_meets_every_other_one(stripes):
    players = stripes + stripes % 2
    met = []
    for number in range(players - 1):
        first, second = _pairs(number, players, stripes)
        pairs = [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
        assert len({stripe for pair in pairs for stripe in pair}) == 2 * len(pairs)
        met += pairs
    assert sorted(met) == list(itertools.combinations(range(stripes), 2))


@pytest.mark.parametrize(("columns", "n", "m"), [(8, 2, 4), (12, 2, 4), (20, 2, 4), (16, 1, 4), (12, 1, 3)])
def test_a_found_order_is_a_permutation_no_exchange_can_better(columns, n, m):
    weight = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns)).abs()
    order = find_permutation(weight, n, m)
    assert sorted(order.tolist()) == list(range(columns))
    best = _kept(weight[:, order], n, m)
    assert best > _kept(weight, n, m)
    for a, b in itertools.combinations(range(columns), 2):
        other = order.clone()
        other[a], other[b] = order[b], order[a]
        assert _kept(weight[:, other], n, m) <= best + 1e-3


def test_it_comes_close_to_the_best_of_all_orders():
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).abs()
    best = max(
        _kept(weight[:, [*half, *sorted(set(range(8)) - set(half))]], 2, 4)
        for half in itertools.combinations(range(8), 4)
    )
    assert _kept(weight[:, find_permutation(weight, 2, 4)], 2, 4) >= 0.97 * best


@pytest.mark.parametrize("build", networks.ALL)
def test_a_reordered_network_computes_the_same(build):
    torch.manual_seed(2)
    model = build().eval()
    names = {name for name, p in model.named_parameters() if p.dim() > 1}
    reordered = copy.deepcopy(model)
    gains, _ = permute_channels(reordered, (X,), names, 1, 2)
    torch.testing.assert_close(reordered(X), model(X), rtol=1e-4, atol=1e-5)
    assert all(gain.after > gain.before for gain in gains)
    if gains:
        assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), reordered.parameters(), strict=True))


def test_some_networks_are_reordered_at_all():
    torch.manual_seed(0)
    for build in (networks.Residual, networks.Grouped, networks.OptionA):
        model = build().eval()
        names = {name for name, p in model.named_parameters() if p.dim() > 1}
        assert permute_channels(model, (X,), names, 1, 2)[0], build.__name__


def test_reordering_raises_what_stays_and_the_pattern_holds_through_recovery():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    with torch.no_grad():
        net[3].weight[:, ::2] *= 0.05
        net[3].weight[:, :8] *= 3
    x = torch.randn(32, 3, 8, 8)
    data = (x, torch.randint(4, (32,)))
    plain, moved = copy.deepcopy(net), copy.deepcopy(net)
    NMPruning(permute=False, targets=("3",)).apply(plain, Context(example_inputs=(x[:2],)))
    context = Context(example_inputs=(x[:2],))
    NMPruning(targets=("3",)).apply(moved, context)
    assert float(moved[3].weight.detach().abs().sum()) > float(plain[3].weight.detach().abs().sum())
    assert any("magnitude that 2:4 keeps of what takes them: 0 " in note for note in context.notes)
    trained = nn.Sequential(moved, nn.Flatten(), nn.Linear(64, 4))
    settings = NMPruning(recovery_epochs=2, fit=FitSettings(learning_rate=0.01), ignore=("0.0", "2"))
    settings.apply(trained, Context(example_inputs=(x[:2],), train=data))
    groups = (moved[3].weight != 0).reshape(4, 4, 4, 9).sum(2)
    assert int(groups.max()) == 2


def test_layers_that_do_not_fit_are_left_alone_and_named():
    context = Context(example_inputs=(X,))
    net = NMPruning().apply(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)), context)
    assert bool((net[0].weight != 0).all())
    assert "left alone, since their inputs are no multiple of 4: 0.weight (3 inputs)" in context.notes
    with pytest.raises(TargetError, match=r"no layer among the targets has a multiple of m=4 inputs"):
        NMPruning().apply(nn.Sequential(nn.Linear(3, 2)), context)


def test_a_model_that_cannot_be_captured_keeps_its_order():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)

    context = Context(example_inputs=(torch.ones(2, 8),))
    net = NMPruning().apply(Odd(), context)
    assert int((net.layer.weight != 0).sum()) == 16
    assert any(
        note.startswith("channels keep their order, since the model cannot be captured") for note in context.notes
    )


def test_bad_settings():
    with pytest.raises(ValueError, match="n must be below m; got n=4, m=4"):
        NMPruning(n=4, m=4)
    with pytest.raises(ValueError, match="greater than 0"):
        NMPruning(n=0)
    with pytest.raises(DataError, match=r"prune\.n_m needs training data"):
        NMPruning(recovery_epochs=1).apply(nn.Sequential(nn.Linear(8, 2)), Context(example_inputs=(torch.ones(2, 8),)))


def test_transposed_convolutions_are_left_alone():
    net = nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(4, 4, 1))
    context = Context(example_inputs=(X,))
    NMPruning().apply(net, context)
    assert context.notes[0] == "left alone, since they are transposed convolutions: 0.weight, 1.weight"
    assert (net[0].weight != 0).all()
    assert (net[1].weight != 0).all()
    assert int((net[2].weight != 0).sum()) == 8
