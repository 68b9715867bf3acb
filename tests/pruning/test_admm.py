import copy
import itertools
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError, TargetError
from adaptkit.export.onnx import export_onnx
from adaptkit.metrics.task import accuracy
from adaptkit.progress import Silent
from adaptkit.pruning import ADMMPruning, MagnitudePruning
from adaptkit.pruning.admm_state import Admm
from adaptkit.pruning.budget import share_budget
from adaptkit.pruning.constraints import Wanted, constraint_sets
from adaptkit.pruning.layerwise import Statistics, match_layers, solve
from adaptkit.pruning.masks import lost_zeros, marked, zeros
from adaptkit.pruning.projections import ConstraintSet, common_patterns, unit_count
from adaptkit.pruning.synthetic import synthetic_inputs
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime.model import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.digits import lenet5_digits, resnet_digits
from tests.pruning.test_gradual import Killed, _data, _net, watching

X = torch.zeros(2, 1, 8, 8)
KINDS = ("element", "filter", "channel", "column", "pattern")


def _units(weight: torch.Tensor, kind: str) -> list[torch.Tensor]:
    """List every unit as a mask, by a loop over places."""
    masks = {}
    for place in itertools.product(*map(range, weight.shape)):
        key = {
            "element": place, "filter": place[:1], "channel": place[1:2], "column": place[1:], "pattern": place[:2],
        }[kind]  # fmt: skip
        masks.setdefault(key, torch.zeros(weight.shape, dtype=torch.bool))[place] = True
    return list(masks.values())


@pytest.mark.parametrize("kind", ["element", "filter", "channel", "column"])
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_projections_are_the_nearest_of_all_members(kind, kept):
    weight = torch.randn(4, 2, 2, 1, generator=torch.Generator().manual_seed(kept))
    units = _units(weight, kind)
    assert unit_count(weight.shape, kind) == len(units)
    kept = min(kept, len(units))
    distances = [
        float((weight * ~torch.stack(chosen).any(0)).square().sum()) for chosen in itertools.combinations(units, kept)
    ]
    projected = ConstraintSet(kind, kept).project(weight)
    assert float((weight - projected).square().sum()) == pytest.approx(min(distances), abs=1e-5)
    assert sum(bool((projected * unit).any()) for unit in units) <= kept


def test_pattern_projection_is_the_nearest_of_all_members():
    weight = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    patterns = common_patterns([weight], 3)
    assert patterns.shape == (3, 9)
    assert (patterns.sum(1) == 4).all()
    assert patterns[:, 4].all()
    best = float("inf")
    for kernels in itertools.combinations(range(4), 2):
        for choice in itertools.product(range(3), repeat=2):
            mask = torch.zeros(4, 9, dtype=torch.bool)
            mask[list(kernels)] = patterns[list(choice)]
            best = min(best, float((weight.reshape(4, 9) * ~mask).square().sum()))
    found = ConstraintSet("pattern", 2, patterns).project(weight)
    assert float((weight - found).square().sum()) == pytest.approx(best, rel=1e-5)


def test_common_patterns_are_those_most_kernels_want():
    pattern = torch.tensor([1.0, 1, 0, 1, 1, 0, 0, 0, 0]).reshape(3, 3)
    weights = torch.stack([pattern * (1 + i) for i in range(5)] + [pattern.flip(0)]).unsqueeze(1) + 1e-4
    assert torch.equal(common_patterns([weights], 1)[0], pattern.flatten().bool())
    assert len(common_patterns([weights], 56)) == 56


def test_a_budget_is_shared_as_the_best_of_all_ways_to():
    """Against all pairs of counts: what the greedy choice keeps is the most for what it spends."""
    energies = {"a": torch.tensor([5.0, 2.0, 1.0, 0.5]), "b": torch.tensor([3.0, 2.9, 0.1])}
    costs = {"a": 1.0, "b": 3.0}
    worth = {name: (one / one.sum()).sort(descending=True).values for name, one in energies.items()}
    for budget in (4.0, 5.0, 7.0, 8.0, 10.0, 13.0):
        found = share_budget(energies, costs, budget)
        spent = found["a"] + 3 * found["b"]
        assert spent <= budget
        value = float(worth["a"][: found["a"]].sum() + worth["b"][: found["b"]].sum())
        for a, b in itertools.product(range(1, 5), range(1, 4)):
            if a + 3 * b <= spent:
                assert float(worth["a"][:a].sum() + worth["b"][:b].sum()) <= value + 1e-6
    assert share_budget(energies, costs, 0.1) == {"a": 1, "b": 1}


def test_renewal_is_that_of_the_textbook():
    net = nn.Sequential(nn.Linear(4, 3))
    state = Admm(net, {"0.weight": ConstraintSet("element", 4)}, rho=0.5, growth=2.0, rounds=3)
    w = net[0].weight.requires_grad_(False)
    z, u, rho = ConstraintSet("element", 4).project(w.detach()), torch.zeros(3, 4), 0.5
    for number in range(3):
        with torch.no_grad():
            w.add_(torch.randn(3, 4))
        assert float(state.penalty()) == pytest.approx(rho / 2 * float((w - z + u).square().sum()), rel=1e-5)
        state.renew()
        before, z = z, ConstraintSet("element", 4).project(w.detach() + u)
        u = (u + w.detach() - z) / 2
        wanted = [(w - z).norm() / w.norm(), rho * (z - before).norm() / w.norm()]
        torch.testing.assert_close(state.residuals()[number], torch.stack(wanted).detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(state.u_0, u)
        rho *= 2
    assert state.rho == 4.0


def test_training_pulls_the_weights_into_the_set():
    torch.manual_seed(0)
    data = _data()
    context = Context(example_inputs=(torch.zeros(2, 6),), train=data)
    net = ADMMPruning(sparsity=0.75, epochs=12, growth=1.4, recovery_epochs=2).apply(_net(), context)
    weights = list(marked(net).values())
    assert [int((w == 0).sum()) for w in weights] == [90, 30]
    assert accuracy(net, data) > 0.9
    note = next(note for note in context.notes if note.startswith("ADMM residuals"))
    primal = [float(value) for value in re.findall(r"\d+: ([\d.]+),", note)]
    assert primal[-1] < 0.05 < primal[0]


@pytest.mark.parametrize("steps", [7, 23])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, steps):
    settings = ADMMPruning(sparsity=0.7, epochs=2.5, rounds=6, fit=FitSettings(checkpoint_seconds=0))

    def context(**changes):
        return Context(example_inputs=(torch.zeros(2, 6),), train=_data(), **changes)

    whole, resumed, seen, first, last = _net(), _net(), [], context(), context(workspace=tmp_path)
    settings.apply(whole, first)
    with pytest.raises(Killed):
        settings.apply(_net(), context(loss=watching([], steps), workspace=tmp_path))
    settings.apply(resumed, last.replace(loss=watching(seen)))
    assert len(seen) == 25 - steps
    assert state_sha256(resumed) == state_sha256(whole)
    assert first.notes == last.notes


def _problem(groups=2, out=3, width=6, samples=200):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, width, samples, generator=generator) * torch.linspace(0.2, 2, width)[None, :, None]
    weight = torch.randn(groups, out, width, generator=generator)
    statistics = Statistics(torch.zeros(groups, width, width).double(), torch.zeros(groups, out, width).double(), 0.0)
    for part in (slice(0, 90), slice(90, None)):
        statistics.add(x[..., part], (weight @ x)[..., part])
    return x, weight, statistics


def test_the_layer_problem_is_solved_as_well_as_least_squares_on_the_support():
    x, weight, statistics = _problem()
    found = solve(statistics, weight.reshape(6, 6), ConstraintSet("element", 18), rho=0.05, growth=1.3, rounds=30)
    solved = found.weight.reshape(2, 3, 6)
    assert int((solved != 0).sum()) == 18
    total = 0.0
    for g, o in itertools.product(range(2), range(3)):
        support = solved[g, o] != 0
        wanted = weight[g, o] @ x[g]
        best = torch.linalg.lstsq(x[g, support].T, wanted[:, None]).solution[:, 0]
        torch.testing.assert_close(solved[g, o, support], best, rtol=2e-2, atol=2e-3)
        total += float((solved[g, o] @ x[g] - wanted).square().sum())
    error = (total / float((weight @ x).square().sum())) ** 0.5
    assert found.error == pytest.approx(error, rel=1e-3)
    assert float(found.residuals[-1, 0]) < 0.01 < float(found.residuals[0, 0])
    largest = ConstraintSet("element", 18).project(weight.reshape(6, 6)).reshape(2, 3, 6)
    assert total < 0.8 * float((largest @ x - weight @ x).square().sum())


class Mixed(nn.Module):
    """Strides, dilation, groups, reflection, 'same', biases, in-place activations, a layer called twice."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 8, 3, padding=1, padding_mode="reflect")
        self.b = nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=2, groups=4)
        self.twice = nn.Conv2d(8, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.b(F.relu(self.a(x), inplace=True)), inplace=True)
        x = F.relu(self.twice(F.relu(self.twice(x), inplace=True)), inplace=True)
        return self.head(self.norm(x).mean((2, 3)))


def test_nothing_to_cut_is_matched_exactly():
    """With room for every weight each layer returns what it did: inputs, outputs and weights are laid out alike."""
    torch.manual_seed(0)
    net = Mixed().eval()
    x = torch.randn(40, 2, 8, 8)
    wanted = net(x).detach()
    sets = {f"{name}.weight": ConstraintSet("element", 10**6) for name in ("a", "b", "twice", "head")}
    sets = {name: ConstraintSet("element", net.get_parameter(name).numel()) for name in sets}
    solutions = match_layers(net, sets, x, (0.01, 1.2, 3), Silent())
    assert list(solutions) == list(sets)
    assert max(one.error for one in solutions.values()) < 1e-3
    torch.testing.assert_close(net(x), wanted, rtol=1e-2, atol=1e-3)


def test_matching_beats_cutting_the_smallest():
    torch.manual_seed(0)
    net = resnet_digits().eval()
    x = torch.rand(64, 1, 8, 8)
    wanted = net(x).detach()
    magnitude = copy.deepcopy(net)
    for module in magnitude.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            kept = ConstraintSet("element", round(0.4 * module.weight.numel()))
            module.weight.data = kept.project(module.weight.data)
    ADMMPruning(sparsity=0.6, data="synthetic", samples=48).apply(net, Context(example_inputs=(X,)))
    assert (net(x) - wanted).norm() < 0.7 * (magnitude(x) - wanted).norm()


class Unreadable:
    """Data that nobody may look at."""

    def __iter__(self):
        raise AssertionError("training data was read")

    def __len__(self):
        raise AssertionError("training data was read")


def test_synthetic_data_reads_no_image():
    """Neither loaders nor the values of the example inputs are looked at: other ones give the same bytes."""
    hashes, notes = [], []
    for example, data in ((X, None), (torch.full((2, 1, 8, 8), torch.nan), Unreadable())):
        torch.manual_seed(0)
        context = Context(example_inputs=(example,), train=data, validation=data, calibration=data, test=data)
        settings = ADMMPruning(macs=0.5, constraint="filter", data="synthetic", samples=16, rounds=4)
        hashes.append(state_sha256(settings.apply(resnet_digits(), context)))
        notes.append(context.notes)
    assert hashes[0] == hashes[1]
    assert notes[0] == notes[1]
    assert any("generated inputs, no image was read" in note for note in notes[0])


def test_generated_inputs_suit_the_normalizations():
    torch.manual_seed(0)
    net = resnet_digits().eval()
    net.train()
    with torch.no_grad():
        for _ in range(30):
            net(3 + 2 * torch.rand(32, 1, 8, 8))
    net.eval()

    def distance(x):
        found = []
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        hooks = [
            m.register_forward_pre_hook(
                lambda m, i: found.append(
                    float(((i[0].mean((0, 2, 3)) - m.running_mean).square() / m.running_var).mean())
                )
            )
            for m in norms
        ]
        with torch.no_grad():
            net(x)
        for hook in hooks:
            hook.remove()
        return sum(found) / len(found)

    random = synthetic_inputs(net, (1, 8, 8), 32, 0, seed=1)
    moved = synthetic_inputs(net, (1, 8, 8), 32, 30, seed=1)
    assert torch.equal(random, torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert distance(moved) < 0.3 * distance(random)
    assert torch.equal(
        synthetic_inputs(nn.Linear(3, 1), (3,), 4, 30, 1), synthetic_inputs(nn.Linear(3, 1), (3,), 4, 0, 1)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cost", ["params", "macs", "sparsity"])
def test_every_set_meets_its_target_and_runs_in_integers(kind, cost, tmp_path):
    torch.manual_seed(0)
    context = Context(example_inputs=(X,))
    share = 0.6 if cost == "sparsity" else 0.4
    settings = {cost: share, "constraint": kind, "data": "synthetic", "samples": 16, "rounds": 3, "input_steps": 2}
    net = ADMMPruning(**settings).apply(resnet_digits(), context)
    from adaptkit.pruning.constraints import macs_per_weight

    weights = marked(net)
    each = macs_per_weight(net, (X,), weights) if cost == "macs" else dict.fromkeys(weights, 1.0)
    left = sum(each[name] * int((w != 0).sum()) for name, w in weights.items())
    whole = sum(each[name] * w.numel() for name, w in weights.items())
    assert 0.33 < left / whole <= 0.42
    for name, weight in weights.items():
        units = weight.detach().flatten(2) if weight.dim() > 2 else weight.detach()[..., None]
        if kind == "filter":
            assert ((units != 0).all((1, 2)) | (units == 0).all((1, 2))).all(), name
        if kind == "pattern":
            assert int((units != 0).sum(2).max()) <= 4
    if cost == "macs":
        x = torch.rand(16, 1, 8, 8)
        quantized = StaticQuantization(calibration=16).apply(
            net, Context(example_inputs=(x[:2],), calibration=(x, torch.zeros(16, dtype=torch.long)))
        )
        export_onnx(quantized, (x[:2],), tmp_path / "model.onnx")
        logits = torch.from_numpy(AdaptedModel.load(tmp_path / "model.onnx").predict(x.numpy()))
        torch.testing.assert_close(logits, quantized(x).detach(), rtol=0.05, atol=0.05)


def test_outputs_of_the_model_keep_their_filters():
    context = Context(example_inputs=(X,))
    net = ADMMPruning(sparsity=0.5, constraint="filter", data="synthetic", samples=8).apply(lenet5_digits(), context)
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    assert bool((last.weight != 0).any(1).all())
    assert any(note.startswith("left alone, since their outputs are outputs of the model") for note in context.notes)


def test_what_cannot_be_matched_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory, self.head, self.spare = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2), nn.Linear(9, 9)

        def forward(self, x):
            return self.head(self.memory(x)[0][:, -1])

    context = Context(example_inputs=(torch.zeros(2, 3, 4),))
    net = ADMMPruning(data="synthetic", samples=4).apply(Net(), context)
    assert list(marked(net)) == ["head.weight"]
    assert (
        "left alone, since they cannot be matched layer by layer: "
        "memory.weight_ih_l0, memory.weight_hh_l0, spare.weight" in context.notes
    )


def test_bad_settings_and_missing_data():
    with pytest.raises(ValueError, match="give exactly one of sparsity, params, macs; found sparsity and macs"):
        ADMMPruning(sparsity=0.5, macs=0.5)
    with pytest.raises(ValueError, match="data: synthetic reads no training data, so recovery_epochs must be 0"):
        ADMMPruning(data="synthetic", recovery_epochs=1)
    with pytest.raises(DataError, match=r"give Context\(train=...\), or set data: synthetic"):
        ADMMPruning().apply(_net(), Context(example_inputs=(torch.zeros(2, 6),)))
    weights = {"0.weight": nn.Parameter(torch.ones(4, 4, 3, 3))}
    net = nn.Sequential(nn.Conv2d(4, 4, 3))
    with pytest.raises(TargetError, match=r"a sparsity of 0.3 was asked for; pattern takes 0.5556 at least"):
        constraint_sets(net, (torch.zeros(2, 4, 8, 8),), weights, Wanted("pattern", "sparsity", 0.3, 8))
    with pytest.raises(TargetError, match="no layer among the targets can be made sparse by pattern"):
        constraint_sets(
            _net(), (torch.zeros(2, 6),), dict(_net().named_parameters()), Wanted("pattern", "params", 0.3, 8)
        )
    assert ADMMPruning(constraint="pattern").wanted().share == pytest.approx(5 / 9)
    assert ADMMPruning().wanted() == Wanted("element", "sparsity", 0.5, 8)


@pytest.mark.parametrize("kind", ["element", "column"])
def test_zeros_that_are_there_stay(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    context = Context(example_inputs=(torch.zeros(1, 32),))
    MagnitudePruning(sparsity=0.9, ranking="per_layer").apply(net, context)
    before = zeros(net)
    ADMMPruning(sparsity=0.5, constraint=kind, data="synthetic", rounds=3).apply(net, context)
    assert lost_zeros(before, net) == []


def test_a_budget_counts_what_stays_whole_and_is_met_or_refused():
    def pruned(share):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        settings = {"constraint": "filter", "params": share, "data": "synthetic", "samples": 4, "rounds": 2}
        return ADMMPruning(**settings).apply(net, Context(example_inputs=(torch.zeros(1, 3, 10, 10),)))

    least = (3 * 9 + 8 * 9 + 8 * 4 * 9) / ((3 * 8 + 8 * 8 + 8 * 4) * 9)
    with pytest.raises(TargetError, match=f"filter reaches {least:.4f} at least, .* 1 of 3 stay whole"):
        pruned(0.01)
    weights = [pruned(0.5)[place].weight for place in (0, 2, 4)]
    kept = sum(int((weight != 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert 0.43 < kept <= 0.5


def test_transposed_convolutions_are_left_alone_by_units():
    net = nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    weights = {f"{place}.weight": net[place].weight for place in range(3)}
    sets, notes = constraint_sets(net, (torch.zeros(1, 3, 4, 4),), weights, Wanted("channel", "sparsity", 0.5, 8))
    assert list(sets) == ["1.weight", "2.weight"]
    assert notes == ["left alone, since they are transposed convolutions: 0.weight"]


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x, y=0.0):
        return self.layer(input=x) + y


def test_inputs_are_made_up_where_there_is_one_of_real_numbers():
    technique = ADMMPruning(data="synthetic", samples=4, rounds=2)
    x = torch.zeros(2, 8, dtype=torch.double)
    net = technique.apply(Sum().double(), Context(example_inputs=(x,)))
    assert int((net.layer.weight == 0).sum()) == 32
    with pytest.raises(DataError, match=r"Sum takes 2 \(float32, float32\). Use data: train"):
        technique.apply(Sum(), Context(example_inputs=(x.float(), x.float())))
    tokens = Context(example_inputs=(torch.zeros(2, 4, dtype=torch.long),))
    with pytest.raises(DataError, match=r"Sequential takes 1 \(int64\)"):
        technique.apply(nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8)), tokens)
