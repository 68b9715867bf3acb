import copy
import itertools
import json

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

from adaptkit.errors import DataError, TargetError
from adaptkit.export.onnx import export_onnx
from adaptkit.factorization import (
    CpFactorization,
    SparseSvdFactorization,
    SvdFactorization,
    TuckerFactorization,
    times,
)
from adaptkit.factorization.neurons import by_loss
from adaptkit.loading.saved import load, save
from adaptkit.profiling.macs import count_macs
from adaptkit.pruning import MagnitudePruning, StructuredPruning
from adaptkit.pruning.masks import lost_zeros, mark, zeros
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime.model import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit_zoo.digits import lenet5_digits, resnet_digits

TECHNIQUES = [SvdFactorization, SparseSvdFactorization, TuckerFactorization, CpFactorization]


def decaying(model: nn.Module, power: float = 1.0) -> nn.Module:
    """Give every weight singular values that fall, as training does."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            u, s, v = torch.linalg.svd(module.weight.detach().flatten(1), full_matrices=False)
            s = s[0] * torch.arange(1, len(s) + 1) ** -power
            module.weight.data = ((u * s) @ v).view_as(module.weight)
    return model.eval()


def data(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 10


def context(**changes) -> Context:
    return Context(example_inputs=(data(2)[0],), calibration=data()).replace(**changes)


def said(context: Context) -> str:
    return "\n".join(context.notes)


@pytest.fixture
def timer(monkeypatch):
    """Make a replacement take the given multiple of its layer's time; lists what was timed."""
    asked: list[tuple] = []

    def timed(ratio=lambda _layer, _parts: 0.5):
        def seconds(chains, threads, batch_size):
            asked.append((*chains, threads, batch_size))
            whole = 1e-3 * chains[0][0].macs
            return [whole, *(whole * ratio(chains[0][0], parts) for parts in chains[1:])]

        monkeypatch.setattr(times, "chain_seconds", seconds)
        return asked

    return timed


@pytest.mark.parametrize("settings", [{"rank": 3}, {"rank": 0.25}, {"energy": 0.6}, {"macs": 0.4}, {"rank": "vbmf"}])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_nothing_grows_whatever_the_rule(technique, settings):
    model = decaying(resnet_digits())
    before = count_macs(model, (data(1)[0],)).total, sum(p.numel() for p in model.parameters())
    where = context()
    targets = ("stage2.1.conv2", "stem.0") if technique is CpFactorization else ("*",)
    model = technique(**settings, targets=targets, undo_slower=False, round_to=1).apply(model, where)
    after = count_macs(model, (data(1)[0],)).total, sum(p.numel() for p in model.parameters())
    assert "layers factorized" in said(where)
    assert after[0] < before[0]
    assert after[1] < before[1]
    assert torch.isfinite(model(data(2)[0])).all()


@pytest.mark.parametrize("technique", [SvdFactorization, TuckerFactorization])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_budget_is_met_and_used(technique, share):
    model = decaying(resnet_digits())
    layers = ("stage1.*", "stage2.*")
    names = [name for name in count_macs(model, (data(1)[0],)).per_layer if name.startswith("stage")]
    if technique is TuckerFactorization:
        names = [name for name in names if "shortcut" not in name]
    before = sum(count_macs(model, (data(1)[0],)).per_layer[name] for name in names)
    technique(macs=share, targets=layers, undo_slower=False, round_to=1).apply(model, context())
    after = count_macs(model, (data(1)[0],)).per_layer
    kept = sum(macs for path, macs in after.items() if any(path == n or path.startswith(f"{n}.") for n in names))
    assert share - 0.08 <= kept / before <= share


def test_energy_is_kept_in_every_layer():
    for technique in (SvdFactorization, TuckerFactorization):
        model = decaying(resnet_digits())
        original = copy.deepcopy(model)
        technique(energy=0.9, undo_slower=False, round_to=1).apply(model, context())
        convolutions = [(name, layer) for name, layer in original.named_modules() if isinstance(layer, nn.Conv2d)]
        pairs = [(layer, model.get_submodule(name)) for name, layer in convolutions]
        losses = [lost(layer, now) for layer, now in pairs if isinstance(now, nn.Sequential)]
        assert len(losses) > 5
        assert all(0.01 < loss <= 0.1 + 1e-4 for loss in losses)


@torch.no_grad()
def lost(layer: nn.Conv2d, sequence: nn.Sequential) -> float:
    """Read the kernel of a sequence off its response to single pixels."""
    size = 2 * max(layer.kernel_size) + 1
    impulses = torch.zeros(layer.in_channels, layer.in_channels, size, size)
    impulses[:, :, size // 2, size // 2] = torch.eye(layer.in_channels)
    changed = sum(
        float(
            (layer(torch.roll(impulses, shift, (2, 3))) - sequence(torch.roll(impulses, shift, (2, 3)))).square().sum()
        )
        for shift in itertools.product(range(layer.stride[0]), range(layer.stride[1]))
    )
    return changed / float(layer.weight.square().sum())


def test_a_number_is_kept_as_it_is_and_a_share_is_rounded_up(timer):
    timer()
    for settings, rank in (({"rank": 5}, 5), ({"rank": 0.15}, 8), ({"rank": 0.15, "round_to": 1}, 5)):
        model = SvdFactorization(targets=("stage1.0.conv1",), **settings).apply(resnet_digits().eval(), context())
        assert model.stage1[0].conv1[0].out_channels == rank


def test_what_is_no_faster_is_put_back_and_the_report_says_so(timer):
    asked = timer(lambda layer, _parts: 1.25 if layer.out_channels == 64 else 0.5)
    model = resnet_digits().eval()
    kept = model.stage2[1].conv1
    where = context()
    TuckerFactorization(rank=0.5, threads=2, batch_size=4).apply(model, where)
    assert model.stage2[1].conv1 is kept
    assert isinstance(model.stage1[0].conv1, nn.Sequential)
    assert "4 of 10 layers factorized" in said(where)
    assert "left alone, because rank 32 × 32 would take 1.25 × its time on ONNX Runtime: stage2.0.conv2" in said(where)
    assert "a 1 × 1 kernel is a matrix (factorize.svd): stage2.0.shortcut.0" in said(where)
    assert all(call[-2:] == (2, 4) for call in asked)
    assert len(asked) == len({str(call) for call in asked})


def test_a_budget_that_is_missed_because_layers_stay_is_said(timer):
    for slower, missed in ((64, True), (1000, False)):
        timer(lambda layer, _parts, slower=slower: 1.25 if layer.out_channels == slower else 0.5)
        where = context()
        TuckerFactorization(macs=0.5, round_to=4).apply(decaying(resnet_digits()), where)
        assert ("factorize.tucker: macs: 0.5 is missed" in said(where)) == missed


def test_without_timing_nothing_is_timed(timer):
    asked = timer()
    SvdFactorization(undo_slower=False).apply(resnet_digits().eval(), context())
    assert asked == []


def test_times_are_kept_in_the_workspace(timer, tmp_path):
    asked = timer()
    TuckerFactorization(rank=0.5).apply(resnet_digits().eval(), context(workspace=tmp_path))
    measured = len(asked)
    assert measured > 0
    TuckerFactorization(rank=0.5).apply(resnet_digits().eval(), context(workspace=tmp_path))
    assert len(asked) == measured


@pytest.mark.parametrize("technique", [SvdFactorization, TuckerFactorization, CpFactorization])
def test_a_budget_in_time_is_met(timer, technique):
    # Time has a part that no rank takes away.
    timer(lambda layer, parts: 0.2 + 0.8 * sum(part.macs for part in parts) / layer.macs)
    model = decaying(resnet_digits())
    where = context()
    targets = ("stage2.0.conv2", "stage2.1.*")
    technique(latency=0.6, targets=targets, round_to=4).apply(model, where)
    shapes = [module for name, module in model.named_modules() if name in ("stage2.0.conv2", "stage2.1.conv1")]
    assert all(isinstance(module, nn.Sequential) for module in shapes)
    ratios = [0.2 + 0.8 * sum(p.weight.numel() for p in module) / (64 * 64 * 9) for module in shapes]
    assert 0.3 < sum(ratios) / len(ratios) <= 0.62
    assert "3 of 3 layers factorized" in said(where)


def test_a_budget_out_of_reach_is_refused(timer):
    timer(lambda _layer, _parts: 0.9)
    with pytest.raises(TargetError, match=r"factorize\.tucker: latency: 0\.5 cannot be reached.*still cost 0\.9"):
        TuckerFactorization(latency=0.5, targets=("stage2.1.*",)).apply(resnet_digits().eval(), context())
    with pytest.raises(TargetError, match=r"macs: 0\.01 cannot be reached"):
        SvdFactorization(macs=0.01).apply(resnet_digits().eval(), context())


class Awkward(nn.Module):
    """Everything that must be left alone."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.again = self.twice
        self.tied = nn.Conv2d(16, 16, 3, padding=1)
        self.tied_too = nn.Conv2d(16, 16, 3, padding=1)
        self.tied_too.weight = self.tied.weight
        self.normed = parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.sparse = nn.Conv2d(16, 16, 3, padding=1)
        mark(self, ["sparse.weight"])
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.only_weight = nn.Linear(16, 16)
        self.plain = nn.Linear(16, 16)

    def forward(self, x):
        for layer in (self.grouped, self.twice, self.again, self.tied, self.tied_too, self.normed, self.sparse):
            x = layer(x)
        x = x.flatten(2).transpose(1, 2)
        x = self.attention(x, x, x)[0] @ self.only_weight.weight
        return self.plain(x)


def test_what_must_be_left_alone_is_and_says_why(timer):
    timer()
    x = torch.randn(2, 16, 4, 4)
    model = Awkward().eval()
    before = copy.deepcopy(model)
    where = Context(example_inputs=(x,))
    SvdFactorization(rank=2).apply(model, where)
    for reason in (
        "it is a grouped convolution: grouped",
        "it is shared: twice, tied, tied_too",
        "a ParametrizedConv2d is not a plain layer: normed",
        "its weight is sparse, which the factors would not be: sparse",
        "a NonDynamicallyQuantizableLinear is not a plain layer: attention.out_proj",
        "the model never calls it: only_weight",
    ):
        assert f"factorize.svd: left alone, because {reason}" in where.notes
    assert "1 of 9 layers factorized" in said(where)
    model.plain = before.plain
    torch.testing.assert_close(model(x), before(x))


@pytest.mark.parametrize("name", ["swin_t", "shufflenet_v2_x0_5", "vit_b_32"])
@pytest.mark.slow
def test_models_that_use_weights_in_their_own_way_still_run(name, timer):
    timer()
    model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    SvdFactorization(rank=0.25).apply(model, Context(example_inputs=(x,)))
    assert model(x).shape == (1, 1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 3, "energy": 0.5}, "give exactly one of rank, energy, macs, latency; found rank and energy"),
        ({"rank": 0}, "greater than 0"),
        ({"rank": 1.5}, "less than 1|fractional"),
        ({"rank": "all"}, "vbmf"),
        ({"energy": 1.0}, "less than 1"),
        ({"latency": 0}, "greater than 0"),
        ({"round_to": 0}, "greater than 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TuckerFactorization(**settings)


def test_patterns_are_checked():
    model = lenet5_digits()
    assert SvdFactorization(targets=("Conv3d",)).check(model) == ["factorize.svd: 'Conv3d' matches no module of LeNet5"]
    assert TuckerFactorization(targets=("Linear",)).check(model) == [
        "factorize.tucker: targets and ignore leave no layer of LeNet5 to factorize"
    ]
    assert TuckerFactorization(ignore=("fc?",)).check(model) == []
    with pytest.raises(TargetError, match="leave no layer of LeNet5 to factorize"):
        TuckerFactorization(targets=("Linear",)).apply(model, context())


def test_ignored_layers_stay(timer):
    timer()
    model = lenet5_digits().eval()
    SvdFactorization(rank=2, ignore=("fc*",)).apply(model, context())
    assert isinstance(model.conv2, nn.Sequential)
    assert all(isinstance(layer, nn.Linear) for layer in (model.fc1, model.fc2, model.fc3))


def test_weighting_needs_data_and_lowers_the_error_of_the_outputs(timer):
    timer()
    with pytest.raises(DataError, match="weighting: activations needs calibration data"):
        SvdFactorization(rank=2, weighting="activations").apply(resnet_digits(), context(calibration=None))
    with pytest.raises(DataError, match="importance: loss needs calibration data"):
        SparseSvdFactorization(rank=2, importance="loss").apply(resnet_digits(), context(calibration=None))
    errors = {}
    x, _ = data()
    original = resnet_digits().eval()
    wanted = original(x).detach()
    for weighting in ("none", "activations"):
        model = copy.deepcopy(original)
        SvdFactorization(rank=0.25, weighting=weighting).apply(model, context())
        errors[weighting] = float((model(x).detach() - wanted).norm())
    assert errors["activations"] < 0.8 * errors["none"]


@pytest.mark.parametrize("importance", ["weight", "activation", "loss"])
def test_sparse_layers_have_their_zeros_where_the_neurons_matter_least(importance, timer):
    timer()
    torch.manual_seed(0)
    model = lenet5_digits().eval()
    weight = model.fc1.weight.detach().clone()
    settings = {"unimportant": 0.25, "kept_rank": 0.5, "importance": importance}
    SparseSvdFactorization(rank=16, targets=("fc1",), **settings).apply(model, context())
    first, second = model.fc1
    assert int((first.weight == 0).sum()) == 8 * 16
    assert int((second.weight == 0).sum()) == 8 * 30
    if importance == "weight":
        least = set(weight.abs().sum(1).argsort()[:30].tolist())
        assert set((second.weight[:, 8:] == 0).all(1).nonzero().flatten().tolist()) == least
        least = set(weight.abs().sum(0).argsort()[:16].tolist())
        assert set((first.weight[8:] == 0).all(0).nonzero().flatten().tolist()) == least


def test_zeros_of_sparse_layers_survive_training(timer, tmp_path):
    timer()
    model = SparseSvdFactorization(rank=16, targets=("fc1", "fc2")).apply(lenet5_digits().eval(), context())
    save(model, lenet5_digits(), tmp_path)
    model = load(lenet5_digits, tmp_path)
    before = zeros(model)
    assert len(before) == 4
    weight = model.fc1[0].weight.detach().clone()
    fit(model, data(), epochs=1)
    assert lost_zeros(before, model) == []
    assert not torch.equal(weight, model.fc1[0].weight)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_sparse_layers_keep_their_zeros_and_factors_claim_none(technique, timer):
    timer()
    where = context()
    model = MagnitudePruning(sparsity=0.5, targets=("stage1.*", "linear")).apply(decaying(resnet_digits()), where)
    before = zeros(model)
    factorized = technique(rank=3).apply(model, where)
    assert "left alone, because its weight is sparse" in said(where)
    claimed = set(zeros(factorized)) - set(before)
    assert all(name.startswith(("stem.", "stage2.")) for name in claimed)
    assert bool(claimed) is (technique is SparseSvdFactorization)
    assert isinstance(factorized.get_submodule("stage2.1.conv2"), nn.Sequential)
    fit(factorized, data(), epochs=1)
    assert lost_zeros(before, factorized) == []


@pytest.mark.parametrize("settings", [{}, {"rank": 3}, {"rank": "vbmf"}, {"energy": 0.5}, {"latency": 0.5}])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_model_that_is_sparse_everywhere_stays_as_it_is(technique, settings, timer):
    timer()
    where = context()
    model = MagnitudePruning(sparsity=0.5).apply(resnet_digits().eval(), where)
    before = copy.deepcopy(model.state_dict())
    technique(**settings).apply(model, where)
    assert "left alone, because its weight is sparse" in said(where)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_follows_still_works(technique, tmp_path):
    """Pruned, saved, loaded, quantized, exported, and run on ONNX Runtime."""
    rank = 24 if technique is CpFactorization else 0.25
    model = technique(rank=rank, undo_slower=False, round_to=1).apply(decaying(resnet_digits()), context())
    model = StructuredPruning(macs=0.7, round_to=1, min_channels=2).apply(model, context())
    save(model, resnet_digits(), tmp_path)
    loaded = load(resnet_digits, tmp_path)
    x = data(8)[0]
    torch.testing.assert_close(loaded(x), model.eval()(x))
    quantized = StaticQuantization(calibration=64).apply(loaded, context()).eval()
    export_onnx(quantized, (x,), tmp_path / "model.onnx")
    logits = torch.from_numpy(AdaptedModel.load(tmp_path / "model.onnx").predict(x.numpy()))
    expected = quantized(x).detach()
    assert (logits - expected).abs().max() <= 0.05 * expected.abs().max()


def test_times_are_really_measured(tmp_path):
    where = context(workspace=tmp_path)
    TuckerFactorization(rank=8, targets=("stage2.1.conv1",)).apply(resnet_digits().eval(), where)
    found = json.loads((tmp_path / "factorized_times.json").read_text())
    (ratio,) = (value for key, value in found.items() if key.startswith("{"))
    outcome = "1 of 1 layers factorized" if ratio < 1 else "rank 8 × 8 would take"
    assert ratio > 0
    assert outcome in said(where)


def test_a_layer_whose_weight_the_model_reads_itself_stays(timer):
    """torch's encoder layer takes a short way in evaluation mode that reads the weights of its linear layers."""
    timer()
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1), nn.Linear(64, 64)).eval()
    x = torch.randn(2, 5, 64)
    where = Context(example_inputs=(x,))
    SvdFactorization(rank=8, undo_slower=False).apply(model, where)
    assert model(x).shape == x.shape
    assert isinstance(model[1], nn.Sequential)
    assert any("the model reads its weight itself: 0.layers.0.linear1, 0.layers.0.linear2" in n for n in where.notes)


def test_a_weight_that_is_not_finite_is_left_alone(timer):
    timer()
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    with torch.no_grad():
        model[0].weight[3, 4] = float("nan")
    where = Context(example_inputs=(torch.zeros(1, 32),))
    SvdFactorization(rank=4, undo_slower=False).apply(model, where)
    assert isinstance(model[0], nn.Linear)
    assert isinstance(model[1], nn.Sequential)
    assert "factorize.svd: left alone, because its weight holds NaN or infinity: 0" in where.notes


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.side = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        x = self.a(input=x)
        return x, self.side(x)


@pytest.mark.parametrize("importance", ["activation", "loss"])
def test_named_inputs_frozen_weights_and_unused_outputs(importance, timer):
    timer()
    model = ByName()
    model.a.weight.requires_grad_(False)
    x = torch.randn(16, 32)
    settings = SparseSvdFactorization(rank=4, importance=importance, undo_slower=False, ignore=("side",))
    settings.apply(model, Context(example_inputs=(x[:1],), calibration=(x, torch.zeros(16, dtype=torch.long))))
    assert isinstance(model.a, nn.Sequential)
    model = ByName()
    model.a.weight.requires_grad_(False)
    scores = by_loss(model, ["a", "side"], (x, torch.zeros(16, dtype=torch.long)), 16, nn.functional.cross_entropy)
    assert scores["side"][0].abs().sum() == 0
    assert scores["a"][0].abs().sum() > 0
    assert not model.a.weight.requires_grad
