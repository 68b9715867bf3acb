import itertools

import pytest
import torch
from torch import nn

from adaptkit.errors import DataError, TargetError
from adaptkit.metrics.task import accuracy
from adaptkit.pruning import SingleShotPruning
from adaptkit.pruning.constraints import macs_per_weight
from adaptkit.pruning.masks import find_weights, marked
from adaptkit.pruning.rows_columns import Pulled, choose_rows_and_columns, mask_of
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.digits import resnet_digits
from tests.pruning.test_gradual import Killed, _data, _net, watching

INPUTS = (torch.zeros(2, 6),)


def _spent(kept, costs):
    return sum(int(rows.sum()) * int(columns.sum()) * costs[name] for name, (rows, columns) in kept.items())


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6, 0.9])
def test_the_choice_is_the_largest_of_one_threshold_within_the_budget(share):
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(6, 4, generator=generator), "b": torch.randn(5, 2, 2, 1, generator=generator)}
    costs = {"a": 1.0, "b": 3.0}
    whole = 24 + 60
    kept = choose_rows_and_columns(weights, costs, {"a"}, share * whole)
    worth = {}
    for name, weight in weights.items():
        flat = weight.double().flatten(1)
        total = flat.square().sum()
        for place, row in enumerate(flat):
            worth[name, "row", place] = float(row.square().sum() / total / len(row) / costs[name])
        for place, column in enumerate(flat.T):
            worth[name, "column", place] = float(column.square().sum() / total / len(column) / costs[name])
    best_rows = {n: max(worth[k] for k in worth if k[0] == n and k[1] == "row") for n in weights}
    best_columns = {n: max(worth[k] for k in worth if k[0] == n and k[1] == "column") for n in weights}

    def chosen(threshold):
        result = {}
        for name, weight in weights.items():
            rows = [worth[name, "row", i] >= min(threshold, best_rows[name]) or name == "b" for i in range(len(weight))]
            count = weight[0].numel()
            columns = [worth[name, "column", i] >= min(threshold, best_columns[name]) for i in range(count)]
            result[name] = torch.tensor(rows), torch.tensor(columns)
        return result

    allowed = [_spent(chosen(t), costs) for t in worth.values() if _spent(chosen(t), costs) <= share * whole]
    assert _spent(kept, costs) == max(allowed)
    assert kept["b"][0].all()


def test_a_budget_below_all_choices_is_refused():
    with pytest.raises(
        TargetError, match=r"a budget of 0\.0100 was asked for; rows and columns reach 0\.2500 at least"
    ):
        choose_rows_and_columns({"a": torch.randn(8, 4)}, {"a": 1.0}, set(), 0.32)


def test_the_proximal_step_shrinks_what_goes_and_nothing_else():
    net = nn.Sequential(nn.Linear(3, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 3.0, 0.1], [3.0, 3.0, 0.1], [0.1, 0.2, 0.1]]))
    pulled = Pulled(net, ["0.weight"])
    before = net[0].weight.detach().clone()
    pulled.pull(0.5)
    assert torch.equal(net[0].weight, before)
    pulled.choose({"0.weight": 1.0}, {"0.weight"}, 4)
    pulled.pull(0.5)
    assert torch.equal(net[0].weight, before * torch.tensor([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 0.5]]))


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_one_budget_gives_rows_and_columns_for_every_layer(cost):
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8)
    context = Context(example_inputs=(x[:2],), train=(x, torch.randint(10, (64,))))
    settings = SingleShotPruning(**{cost: 0.4}, epochs=2, fit=FitSettings(learning_rate=0.01))
    net = settings.apply(resnet_digits(), context)
    weights = marked(net)
    costs = macs_per_weight(net, (x[:2],), weights) if cost == "macs" else dict.fromkeys(weights, 1.0)
    left = sum(costs[name] * int((w != 0).sum()) for name, w in weights.items())
    whole = sum(costs[name] * w.numel() for name, w in weights.items())
    assert 0.3 < left / whole <= 0.4 + 1e-9
    shares = set()
    for name, weight in weights.items():
        flat = weight.detach().flatten(1) != 0
        assert torch.equal(flat, flat.any(1)[:, None] & flat.any(0))
        shares.add((round(float(flat.any(1).float().mean()), 2), round(float(flat.any(0).float().mean()), 2)))
        if name.startswith("linear") or name.endswith("head.weight"):
            assert flat.any(1).all()
    assert len(shares) > 2
    assert any(note.startswith("rows and columns that stay, where fewest do: ") for note in context.notes)


def test_training_recovers_what_the_cut_alone_would_lose():
    data = _data()
    context = Context(example_inputs=INPUTS, train=data)
    net = SingleShotPruning(params=0.3, epochs=8, recovery_epochs=1).apply(_net(), context)
    assert accuracy(net, data) > 0.9
    assert sum(int((w != 0).sum()) for w in marked(net).values()) <= 0.3 * 160


@pytest.mark.parametrize("steps", [6, 21])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, steps):
    settings = SingleShotPruning(params=0.4, epochs=2.5, fit=FitSettings(ema=0.9, checkpoint_seconds=0))

    def context(**changes):
        return Context(example_inputs=INPUTS, train=_data(), **changes)

    whole, resumed, seen = _net(), _net(), []
    settings.apply(whole, context())
    with pytest.raises(Killed):
        settings.apply(_net(), context(loss=watching([], steps), workspace=tmp_path))
    settings.apply(resumed, context(loss=watching(seen), workspace=tmp_path))
    assert len(seen) == 25 - steps
    assert state_sha256(resumed) == state_sha256(whole)


def test_masks_are_products_of_rows_and_columns():
    weight = torch.ones(3, 2, 2, 1)
    rows, columns = torch.tensor([True, False, True]), torch.tensor([True, True, False, True])
    mask = mask_of(weight, (rows, columns))
    for o, i, k in itertools.product(range(3), range(2), range(2)):
        assert bool(mask[o, i, k, 0]) == bool(rows[o] and columns[2 * i + k])


def test_bad_settings():
    with pytest.raises(ValueError, match="give exactly one of params, macs; found params and macs"):
        SingleShotPruning(params=0.5, macs=0.5)
    assert SingleShotPruning().target() == ("macs", 0.5)
    with pytest.raises(DataError, match=r"prune\.single_shot needs training data"):
        SingleShotPruning().apply(_net(), Context(example_inputs=INPUTS))


def test_weights_inside_attention_are_multiplied_once_a_token():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 2, kdim=12, vdim=12, batch_first=True)

    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention, nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.attention(x, key=x[:, :3, :12], value=x[:, :3, :12])[0])

    net = Crossed()
    found = macs_per_weight(net, (torch.zeros(2, 5, 16),), find_weights(net, ["*"]))
    assert {name.removeprefix("attention."): uses for name, uses in found.items()} == {
        "q_proj_weight": 5, "k_proj_weight": 3, "v_proj_weight": 3, "out_proj.weight": 5, "head.weight": 5,
    }  # fmt: skip


def test_the_default_budget_is_reached_with_attention():
    torch.manual_seed(0)
    x = torch.randn(32, 5, 16)
    net = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Flatten(), nn.Linear(80, 2)).eval()
    net = SingleShotPruning(epochs=1).apply(net, Context(example_inputs=(x[:1],), train=(x, (x[:, 0, 0] > 0).long())))
    uses = macs_per_weight(net, (x[:1],), marked(net))
    spent, whole = (
        sum(uses[name] * int(f(w)) for name, w in marked(net).items()) for f in (torch.count_nonzero, torch.numel)
    )
    assert 0.4 < spent / whole <= 0.5
