import copy
import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
from torch import nn

from adaptkit.errors import DataError, TargetError
from adaptkit.pruning import StructuredPruning
from adaptkit.surgery import describe, rebuild
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from adaptkit_zoo.digits import lenet5_digits, resnet_digits
from tests.pruning.networks import Packed

X = torch.zeros(1, 1, 8, 8)
IMPORTANCE = get_args(StructuredPruning.model_fields["importance"].annotation)


def _data(samples: int = 64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, 1, 8, 8, generator=generator), torch.randint(10, (samples,), generator=generator)


def _macs(model: nn.Module, x: torch.Tensor) -> int:
    total = 0

    def count(module, _, output):
        nonlocal total
        total += module.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("ranking", ["global", "isomorphic", "per_layer"])
@pytest.mark.parametrize("build", [lenet5_digits, resnet_digits])
def test_targets_are_met_within_two_percent(build, ranking):
    model = build()
    macs, parameters = _macs(model, X), _parameters(model)
    context = Context(example_inputs=(X,))
    pruned = StructuredPruning(macs=0.6, ranking=ranking).apply(copy.deepcopy(model), context)
    assert _macs(pruned, X) / macs == pytest.approx(0.6, rel=0.02)
    pruned = StructuredPruning(params=0.4, ranking=ranking).apply(copy.deepcopy(model), context)
    assert _parameters(pruned) / parameters == pytest.approx(0.4, rel=0.02)


@pytest.mark.slow
def test_resnet20_with_zero_padded_shortcuts_is_halved_in_rounded_widths():
    model = resnet20_cifar()
    x = torch.zeros(1, 3, 32, 32)
    macs = _macs(model, x)
    steps = [min(8, module.out_channels // 4) for module in model.modules() if isinstance(module, nn.Conv2d)]
    pruned = StructuredPruning().apply(model, Context(example_inputs=(x,)))
    assert _macs(pruned, x) / macs == pytest.approx(0.5, rel=0.02)
    widths = [module.out_channels for module in pruned.modules() if isinstance(module, nn.Conv2d)]
    assert sum(width % step != 0 for width, step in zip(widths, steps, strict=True)) <= 7


def test_every_importance_runs_and_they_differ():
    context = Context(example_inputs=(X,), calibration=_data(16))
    torch.manual_seed(5)
    model = resnet_digits()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    sums = {
        kind: state_sha256(StructuredPruning(macs=0.6, importance=kind).apply(copy.deepcopy(model), context))
        for kind in IMPORTANCE
    }
    assert len(set(sums.values())) == len(IMPORTANCE) == 9


def test_iterations_with_recovery_meet_the_target_and_resume_to_the_same_bytes(tmp_path):
    settings = StructuredPruning(
        macs=0.5, iterations=2, recovery_epochs=2, importance="taylor", fit=FitSettings(learning_rate=0.01)
    )
    context = Context(example_inputs=(X,), train=_data(), calibration=_data(), workspace=tmp_path)
    torch.manual_seed(1)
    model = lenet5_digits()
    macs = _macs(model, X)
    first = settings.apply(copy.deepcopy(model), context)
    assert _macs(first, X) / macs == pytest.approx(0.5, rel=0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recovery-1", "recovery-2"]
    again = settings.apply(copy.deepcopy(model), context)
    elsewhere = settings.apply(copy.deepcopy(model), context.replace(workspace=None))
    assert state_sha256(first) == state_sha256(again) == state_sha256(elsewhere)


def test_sparse_training_takes_the_least_units_towards_zero():
    torch.manual_seed(0)
    model = lenet5_digits()
    context = Context(example_inputs=(X,), train=_data(256))
    left = {}
    for strength in (1e-9, 0.03):
        settings = StructuredPruning(
            macs=0.99, round_to=1, sparse_epochs=8, sparse_strength=strength, fit=FitSettings(learning_rate=0.05)
        )
        trained = settings.apply(copy.deepcopy(model), context)
        norms = trained.state_dict()
        left[strength] = min(float(t.flatten(1).norm(dim=1).min()) for n, t in norms.items() if t.dim() == 4)
    assert left[0.03] < 0.5 * left[1e-9]


def test_isomorphic_ranking_keeps_heads_and_features_in_balance():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 32)
    layer = nn.TransformerEncoderLayer(32, 8, 64, batch_first=True)
    model = nn.Sequential(layer, copy.deepcopy(layer), nn.Linear(32, 5))
    for one in model[:2]:
        one.linear1.weight.data *= 100
        one.linear2.weight.data *= 100
    pruned = StructuredPruning(params=0.75, ranking="isomorphic", round_to=1, min_channels=1, importance="lamp").apply(
        model, Context(example_inputs=(x,))
    )
    heads = sum(one.self_attn.num_heads for one in pruned[:2])
    features = sum(one.linear1.out_features for one in pruned[:2])
    assert heads / 16 == pytest.approx(features / 128, abs=0.1)


def test_a_latency_target_follows_the_table(monkeypatch):
    from adaptkit.profiling.layer_latency import LatencyTable

    def seconds(self, shape):
        blocks = -(-shape.out_channels // 16) * -(-shape.in_channels // 16)
        return float(blocks * max(1, len(shape.input_size) and shape.input_size[0]))

    monkeypatch.setattr(LatencyTable, "seconds", seconds)
    context = Context(example_inputs=(X,))
    pruned = StructuredPruning(latency=0.5).apply(resnet_digits(), context)
    widths = {module.out_channels for module in pruned.modules() if isinstance(module, nn.Conv2d)}
    assert widths <= {16, 32, 48, 64}
    assert widths != {32, 64}


def test_targets_and_ignore_say_which_outputs_may_go():
    model = resnet_digits()
    StructuredPruning(macs=0.85, targets=("stage2.*",), ignore=("stage2.1",)).apply(model, Context(example_inputs=(X,)))
    assert model.stem[0].out_channels == 32
    assert {model.stage1[0].conv1.out_channels, model.stage2[1].conv1.out_channels} == {32, 64}
    assert model.stage2[0].conv1.out_channels < 64


def test_min_channels_is_a_floor_for_every_layer():
    model = StructuredPruning(params=0.3, min_channels=24, round_to=1, ranking="global", importance="random").apply(
        resnet_digits(), Context(example_inputs=(X,))
    )
    assert min(module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)) >= 24


def test_notes_say_what_was_cut_and_where_rounding_was_given_up():
    context = Context(example_inputs=(X,))
    StructuredPruning(macs=0.55).apply(lenet5_digits(), context)
    assert any(note.startswith("cut most (channels): ") and "→" in note for note in context.notes)
    context = Context(example_inputs=(X,))
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Conv2d(16, 4, 3))
    StructuredPruning(macs=0.7).apply(net, context)
    assert "rounding to 8 channels was given up to meet the target in: 0" in context.notes
    assert net[0].out_channels == 11


def test_what_cannot_be_reached_or_is_missing_is_said():
    context = Context(example_inputs=(X,))
    with pytest.raises(
        TargetError, match=r"a ratio of 0.01 was asked for; the smallest these settings can reach is 0\."
    ):
        StructuredPruning(macs=0.01).apply(resnet_digits(), context)
    with pytest.raises(TargetError, match="nothing can be pruned"):
        StructuredPruning(targets=("linear",)).apply(resnet_digits(), context)
    with pytest.raises(DataError, match="importance: taylor needs calibration data"):
        StructuredPruning(importance="taylor").apply(resnet_digits(), context)
    for kind in ("obd", "activation"):
        with pytest.raises(DataError, match=f"importance: {kind} needs calibration data"):
            StructuredPruning(importance=kind).apply(resnet_digits(), context)
    with pytest.raises(DataError, match="sparse_epochs needs training data"):
        StructuredPruning(sparse_epochs=1).apply(resnet_digits(), context)
    with pytest.raises(DataError, match="recovery_epochs needs training data"):
        StructuredPruning(recovery_epochs=1).apply(resnet_digits(), context)


def test_exactly_one_target():
    assert StructuredPruning().target() == ("macs", 0.5)
    assert StructuredPruning(latency=0.4).target() == ("latency", 0.4)
    assert StructuredPruning.model_validate(json.loads(StructuredPruning(params=0.4).model_dump_json())).target() == (
        "params",
        0.4,
    )
    with pytest.raises(ValueError, match="exactly one of macs, params, latency; found macs and latency"):
        StructuredPruning(macs=0.5, latency=0.5)
    with pytest.raises(ValueError, match="less than 1"):
        StructuredPruning(macs=1.0)


def test_check_lists_every_problem():
    settings = StructuredPruning(targets=("stage9.*", "Conv2d"), ignore=("conv7",))
    assert settings.check(resnet_digits()) == [
        "'stage9.*' matches no module of the model",
        "ignore: 'conv7' matches no module of the model",
    ]
    assert StructuredPruning(ignore=("*",)).check(resnet_digits()) == ["targets and ignore together leave no module"]
    assert StructuredPruning().check(resnet_digits()) == []


def test_settings_are_read_without_torch():
    code = "import sys, adaptkit.pruning as p; p.StructuredPruning(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pruned_attention_is_described_and_rebuilt():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    pruned = StructuredPruning(params=0.5, round_to=1, min_channels=2).apply(Packed(), Context(example_inputs=(x,)))
    assert pruned.attention.num_heads < 4 or pruned.embed.out_features < 16
    rebuilt = rebuild(Packed(), json.loads(json.dumps(describe(pruned, Packed()))))
    rebuilt.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(rebuilt.eval()(x), pruned.eval()(x))


def test_an_embedding_makes_what_it_looks_up():
    def pruned(**patterns):
        net = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        context = Context(example_inputs=(torch.zeros(1, 4, dtype=torch.long),))
        return StructuredPruning(params=0.8, **patterns).apply(net, context)

    for patterns in ({"ignore": ("0",)}, {"targets": ("Linear",)}):
        net = pruned(**patterns)
        assert net[0].embedding_dim == 64
        assert net[1].out_features < 64
    assert pruned(targets=("Embedding",))[0].embedding_dim < 64


def test_a_transposed_convolution_is_scored_and_left_alone_by_its_outputs():
    def net():
        return nn.Sequential(nn.ConvTranspose2d(8, 32, 2), nn.ReLU(), nn.ConvTranspose2d(32, 8, 2))

    context = Context(example_inputs=(torch.zeros(1, 8, 4, 4),))
    with pytest.raises(TargetError, match="nothing can be pruned"):
        StructuredPruning(ignore=("0",)).apply(net(), context)
    model = net()
    with torch.no_grad():
        model[0].weight[:, :16] = 0
        model[2].weight[:16] *= 100
    StructuredPruning(importance="l1").apply(model, context)
    assert model[0].out_channels == 16
    assert (model[0].weight != 0).all()


def test_empty_calibration_data_is_an_error():
    for importance in ("taylor", "obd", "activation"):
        with pytest.raises(DataError, match="calibration data is empty"):
            StructuredPruning(importance=importance).apply(lenet5_digits(), Context((X,), calibration=[]))


@pytest.mark.parametrize("importance", ["taylor", "obd"])
def test_frozen_parameters_are_scored_and_stay_frozen(importance):
    models = [lenet5_digits(), lenet5_digits()]
    models[1].load_state_dict(models[0].state_dict())
    models[1].requires_grad_(False)
    sums = set()
    for model in models:
        context = Context((X,), calibration=_data(16))
        sums.add(state_sha256(StructuredPruning(importance=importance).apply(model, context)))
    assert len(sums) == 1
    assert not any(parameter.requires_grad for parameter in models[1].parameters())
    assert all(parameter.requires_grad for parameter in models[0].parameters())


def test_parameters_are_frozen_again_after_an_error():
    model = lenet5_digits().requires_grad_(False)
    with pytest.raises(DataError):
        StructuredPruning(importance="taylor").apply(model, Context((X,), calibration=[]))
    assert not any(parameter.requires_grad for parameter in model.parameters())
