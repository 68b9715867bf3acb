"""prune.depth: the right blocks go, by a ranking that equals the naive one."""

import copy
import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError, TargetError
from adaptkit.profiling.layer_latency import TimeStore
from adaptkit.pruning import block_times
from adaptkit.pruning.block_ranking import batch_statistics, divergence, first_samples, rank_blocks
from adaptkit.pruning.block_times import BlockTimes, block_macs
from adaptkit.pruning.blocks import residual_blocks
from adaptkit.pruning.depth import DepthPruning
from adaptkit.surgery import replace_module
from adaptkit.technique import Context
from adaptkit_zoo.cifar_resnet import resnet20_cifar


class Block(nn.Module):
    def __init__(self, channels, strength=1.0):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, strength)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)), inplace=True)


def small(strengths=(1.0, 0.5, 0.01, 0.7)):
    torch.manual_seed(1)
    blocks = [Block(6, strength) for strength in strengths]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), *blocks, *head)


def samples(count=24, size=8):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, size, size, generator=generator), torch.arange(count) % 5


def context(count=24, **more):
    x, y = samples(count)
    return Context(example_inputs=(x[:1],), calibration=(x, y), **more)


def naive(model, name, batches, score):
    pruned = copy.deepcopy(model).eval()
    if name:
        replace_module(pruned, name, nn.Identity())
    with torch.no_grad(), batch_statistics(pruned):
        total = sum(float(score(pruned(x), y)) * len(x) for x, y in batches)
    return total / sum(len(x) for x, _ in batches)


@pytest.mark.parametrize("build", [small, resnet20_cifar])
def test_ranking_with_reuse_equals_removing_and_running(build):
    model = build()
    x, y = samples(20, 32)
    batches = [(x[:12], y[:12]), (x[12:], y[12:])]
    names = list(residual_blocks(model, (x[:1],)))
    ranking = rank_blocks(model, names, batches, F.cross_entropy)
    assert ranking.complete == naive(model, "", batches, F.cross_entropy)
    for name in names:
        assert ranking.without[name] == naive(model, name, batches, F.cross_entropy)


def test_ranking_computes_nothing_before_the_removed_block():
    model = small()
    calls = []
    for index in range(2, 6):
        model[index].register_forward_pre_hook(lambda *_, i=index: calls.append(i))
    rank_blocks(model, ["2", "3", "4", "5"], [samples()], F.cross_entropy)
    assert calls == [2, 3, 4, 5, 3, 4, 5, 4, 5, 5]


def test_ranking_leaves_the_model_as_it_was():
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = list(model.modules())
    rank_blocks(model, ["2", "3"], [samples()], F.cross_entropy)
    assert list(model.modules()) == modules
    assert all(module.training for module in modules)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_ranking_puts_the_blocks_back_after_an_error():
    def fail(output, reference):
        raise ZeroDivisionError

    model = small()
    modules = list(model.modules())
    with pytest.raises(ZeroDivisionError):
        rank_blocks(model, ["2", "3"], [samples()], fail)
    assert list(model.modules()) == modules


@pytest.mark.parametrize("score", ["kl", "loss"])
def test_the_block_that_does_least_goes_first(score):
    model = small((1.0, 0.8, 0.01, 0.7))
    x, _ = samples()
    with torch.no_grad(), batch_statistics(model):
        labels = model(x).softmax(1)
    DepthPruning(blocks=1, score=score).apply(model, Context(example_inputs=(x[:1],), calibration=(x, labels)))
    assert [type(model[i]).__name__ for i in range(2, 6)] == ["Block", "Block", "Identity", "Block"]


def test_every_removal_is_the_best_of_the_naive_ranking():
    model = DepthPruning(blocks=3).apply(small(), context())
    reference = small().eval()
    x, _ = samples()
    with torch.no_grad(), batch_statistics(reference):
        batches = [(x, reference(x))]
    left = ["2", "3", "4", "5"]
    for _ in range(3):
        best = min(left, key=lambda name: naive(reference, name, batches, divergence))
        replace_module(reference, best, nn.Identity())
        left.remove(best)
    assert [name for name in left if isinstance(model.get_submodule(name), Block)] == left


def test_removal_is_the_same_to_the_bit_each_time():
    results = [DepthPruning(blocks=2).apply(small(), context()) for _ in range(2)]
    assert str(results[0]) == str(results[1])
    assert all(
        torch.equal(a, b)
        for a, b in zip(results[0].state_dict().values(), results[1].state_dict().values(), strict=True)
    )


def test_macs_target_is_met_with_as_few_blocks_as_it_takes():
    x, y = samples(8, 32)
    ctx = Context(example_inputs=(x[:2],), calibration=(x, y))
    model = resnet20_cifar()
    before = block_macs(model, ["layer1.0"], (x[:2],))
    assert before[""] == pytest.approx(40_552_064 + 0, rel=1e-3)
    assert before["layer1.0"] == 2 * 16 * 16 * 9 * 1024
    pruned = DepthPruning(macs=0.7).apply(model, ctx)
    kept = block_macs(pruned, [], (x[:2],))[""] / before[""]
    assert 0.7 - before["layer1.0"] / before[""] < kept <= 0.7


def test_notes_name_what_went():
    ctx = context()
    DepthPruning(blocks=2).apply(small(), ctx)
    assert len(ctx.notes) == 1
    assert ctx.notes[0].startswith("removed 2 of 4 residual blocks")
    assert "each went): 4 (+" in ctx.notes[0]


@pytest.mark.slow
def test_latency_target_uses_measured_times_that_are_kept(tmp_path, monkeypatch):
    first = DepthPruning(latency=0.8).apply(small(), context(workspace=tmp_path))
    stored = json.loads((tmp_path / "block_times.json").read_text())
    assert sorted({key.split()[0] for key in stored}) == ["block", "kept"]
    assert sum(key.startswith("block") for key in stored) == 1  # four blocks of one structure are timed once

    monkeypatch.setattr(block_times, "median_seconds", lambda *_: pytest.fail("measured again"))
    second = DepthPruning(latency=0.8).apply(small(), context(workspace=tmp_path))
    assert str(first) == str(second)


def test_latency_decides_by_rise_per_second(monkeypatch):
    monkeypatch.setattr(block_times, "to_onnx", lambda *_: None)
    model = small((1.0, 0.5, 0.4, 0.7))
    ranked = rank_blocks(model, ["2", "3", "4", "5"], [samples()], F.cross_entropy)
    share = {"2": 0.2, "3": 0.2, "4": 0.2, "5": 0.2}
    dearest = max(share, key=ranked.rise)
    share[dearest] = 0.39
    monkeypatch.setattr(BlockTimes, "block", lambda self, block, x: share[_name(model, block)])
    monkeypatch.setattr(BlockTimes, "kept", lambda self, model: 0.61)
    x, y = samples()
    scaled = {name: ranked.rise(name) / share[name] for name in share}
    DepthPruning(latency=0.81, score="loss").apply(model, Context(example_inputs=(x[:1],), calibration=(x, y)))
    assert isinstance(model.get_submodule(min(scaled, key=scaled.__getitem__)), nn.Identity)


def _name(model, block):
    return next(name for name, module in model.named_modules() if module is block)


def test_latency_removes_on_until_the_whole_model_is_measured_fast_enough(monkeypatch):
    monkeypatch.setattr(block_times, "to_onnx", lambda *_: None)
    measured = iter([0.9, 0.85, 0.7])
    monkeypatch.setattr(BlockTimes, "block", lambda self, block, x: 0.2)
    monkeypatch.setattr(BlockTimes, "kept", lambda self, model: next(measured))
    model = DepthPruning(latency=0.8).apply(small(), context())
    assert sum(isinstance(module, nn.Identity) for module in model.modules()) == 3


@pytest.mark.slow
def test_block_times_are_shares_of_the_model():
    model = small()
    x = samples()[0][:1]
    times = BlockTimes(model, (x,), TimeStore())
    assert 0 < times.block(model[2], torch.randn(1, 6, 8, 8)) < 1
    assert times.kept(model) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 5}, "blocks: 5 of 4 removable blocks; ask for fewer"),
        ({"macs": 0.01}, r"macs: 0.01 cannot be reached: without all its 4 removable blocks the model keeps 0\.1\d\d"),
    ],
)
def test_a_target_out_of_reach_names_what_can_be_reached(settings, message):
    with pytest.raises(TargetError, match=message):
        DepthPruning(**settings).apply(small(), context())


def test_a_latency_out_of_reach_is_refused(monkeypatch):
    monkeypatch.setattr(block_times, "to_onnx", lambda *_: None)
    monkeypatch.setattr(BlockTimes, "block", lambda self, block, x: 0.2)
    monkeypatch.setattr(BlockTimes, "kept", lambda self, model: 0.5)
    with pytest.raises(TargetError, match=r"latency: 0.1 cannot be reached.*keeps 0.200"):
        DepthPruning(latency=0.1).apply(small(), context())
    with pytest.raises(TargetError, match=r"latency: 0.3 cannot be reached.*keeps 0.500"):
        DepthPruning(latency=0.3).apply(small(), context())


def test_a_model_without_residual_blocks_is_refused():
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    with pytest.raises(TargetError, match="Sequential has no residual block"):
        DepthPruning(blocks=1).apply(plain, context())


@pytest.mark.parametrize("settings", [{}, {"latency": 0.5, "macs": 0.5}, {"blocks": 0}, {"latency": 1.0}, {"mac": 0.5}])
def test_settings_that_say_nothing_or_too_much_are_refused(settings):
    with pytest.raises(ValidationError):
        DepthPruning(**settings)


def test_check_names_patterns_that_match_nothing():
    problems = DepthPruning(blocks=1, targets=("Block", "stage9.*")).check(small())
    assert problems == ["prune.depth: 'stage9.*' matches no module of Sequential"]


def test_ranking_needs_two_samples():
    with pytest.raises(DataError, match="at least 2 calibration samples"):
        DepthPruning(blocks=1).apply(small(), context(1))


def test_first_samples_stops_at_the_count():
    x, y = samples(24)
    taken = first_samples([(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:], y[20:])], 14)
    assert [len(part) for part, _ in taken] == [10, 4]


def test_divergence_is_that_of_the_definition():
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    want = sum((q * (q / p).log()).sum() for p, q in zip(a.softmax(1), b.softmax(1), strict=True)) / 3
    assert divergence(a, b).item() == pytest.approx(want.item(), abs=1e-6)


def test_statistics_are_measured_anew_behind_what_went():
    """Blocks behind a removed one are given inputs of another mean, which the old statistics do not know."""
    model = small((0.02, 1.0, 1.0, 1.0))
    with torch.no_grad():
        model[2].norm.bias.fill_(5.0)
    x, y = samples(96)
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(x)
    model.eval()
    y = model(x).argmax(1)
    before = {name: value.clone() for name, value in model.named_buffers() if "running_mean" in name}
    given = Context(example_inputs=(x[:1],), calibration=(x, y), loss=lambda output, _: output.square().mean())
    DepthPruning(blocks=1, targets=("2",)).apply(model, given)
    assert "normalizations measured anew on 96 calibration samples" in given.notes[-1]
    assert not torch.equal(before["3.norm.running_mean"], model[3].norm.running_mean)
