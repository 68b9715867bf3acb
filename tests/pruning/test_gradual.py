import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batches
from adaptkit.pruning import GradualPruning
from adaptkit.pruning.masks import marked
from adaptkit.pruning.schedules import cubic_sparsity
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings

SETTINGS = {"sparsity": 0.8, "epochs": 2.5, "updates": 4, "fit": FitSettings(ema=0.9, checkpoint_seconds=0)}


def _data():
    x = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
    return Batches(x, (x[:, 0] > 0).long(), batch_size=16, shuffle=True)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))


def _context(**changes) -> Context:
    return Context(example_inputs=(torch.zeros(1, 6),), train=_data(), **changes)


class Killed(BaseException):
    """Stands for the end of the process."""


def watching(seen, stop_after=None):
    """A loss that notes the sparsity of the model at every step, and may end the process."""
    count = itertools.count(1)

    def loss(output, target):
        if stop_after is not None and next(count) > stop_after:
            raise Killed
        seen.append(None)
        return F.cross_entropy(output, target)

    return loss


def test_the_sparsity_follows_the_schedule_and_never_falls(monkeypatch):
    shares = []
    net = _net()
    step = torch.optim.SGD.step

    def noting(self):
        weights = marked(net).values()
        shares.append(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights))
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    GradualPruning(**SETTINGS).apply(net, _context())
    total, end = 25, round(0.7 * 25)
    wanted = 0.0
    for number, share in enumerate(shares):  # before optimizer step `number`, so after as many updates
        if number and (number >= end or (number * 4) // end > ((number - 1) * 4) // end):
            wanted = cubic_sparsity(number, 0, end, 0.0, 0.8)
        assert share == pytest.approx(wanted, abs=0.01), number
    assert len(shares) == total
    assert sum(int((w == 0).sum()) for w in marked(net).values()) == 128


@pytest.mark.parametrize("steps", [3, 11, 24])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, steps):
    whole, resumed = _net(), _net()
    GradualPruning(**SETTINGS).apply(whole, _context())
    with pytest.raises(Killed):
        GradualPruning(**SETTINGS).apply(_net(), _context(loss=watching([], steps), workspace=tmp_path))
    seen = []
    GradualPruning(**SETTINGS).apply(resumed, _context(loss=watching(seen), workspace=tmp_path))
    assert len(seen) == 25 - steps
    assert state_sha256(resumed) == state_sha256(whole)


def test_a_fit_of_one_step_is_as_sparse_as_asked():
    net = GradualPruning(sparsity=0.75, epochs=0.01, begin=0.6, ranking="per_layer").apply(_net(), _context())
    assert int((net[0].weight == 0).sum()) == 90


def test_initial_sparsity_comes_first():
    net = GradualPruning(sparsity=0.8, initial=0.5, end=1.0, epochs=0.2, updates=2).apply(_net(), _context())
    assert sum(int((w == 0).sum()) for w in marked(net).values()) == 128


def test_it_beats_the_same_cut_without_training():
    """After pruning and training the accuracy is back; what was cut at once has lost it."""
    data = _data()
    from adaptkit.metrics.task import accuracy
    from adaptkit.pruning import MagnitudePruning
    from adaptkit.training.fit import fit

    net = _net()
    fit(net, data, epochs=4)
    once = MagnitudePruning(sparsity=0.95).apply(copy.deepcopy(net), _context())
    slowly = GradualPruning(sparsity=0.95, epochs=4).apply(net, _context())
    assert accuracy(slowly, data) > 0.9
    assert accuracy(slowly, data) >= accuracy(once, data)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"begin must be before end; got begin=0.8, end=0.7"):
        GradualPruning(begin=0.8)
    with pytest.raises(ValueError, match=r"initial must be below sparsity; got initial=0.5, sparsity=0.4"):
        GradualPruning(initial=0.5, sparsity=0.4)
    with pytest.raises(DataError, match=r"prune\.gradual needs training data"):
        GradualPruning().apply(_net(), Context(example_inputs=(torch.zeros(1, 6),)))
