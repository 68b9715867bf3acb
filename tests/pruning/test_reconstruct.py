import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from adaptkit.errors import DataError
from adaptkit.pruning import StructuredPruning
from adaptkit.pruning.masks import mark
from adaptkit.pruning.reconstruct import least_squares, outputs_before, patches, reconstruct
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit_zoo.digits import resnet_digits


@hypothesis_settings(deadline=None)
@given(
    rows=st.integers(3, 30),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 4),
    intercept=st.booleans(),
    ridge=st.sampled_from([1e-3, 0.1, 2.0]),
    seed=st.integers(0, 99),
)
def test_the_change_is_that_of_a_larger_problem_without_a_ridge(rows, inputs, outputs, intercept, ridge, seed):
    """Rows √λ I with nothing to gain are the ridge; the intercept is a column that has none."""
    generator = np.random.default_rng(seed)
    x, error = generator.normal(1, 1, (rows, inputs)), generator.normal(1, 1, (rows, outputs))
    spread = x - x.mean(0) if intercept else x
    weight = ridge * (spread**2).sum(0).mean()
    wide = np.concatenate([x, np.ones((rows, 1))], 1) if intercept else x
    damped = np.concatenate([wide, np.sqrt(weight) * np.eye(wide.shape[1])[:inputs]])
    wanted = np.linalg.lstsq(damped, np.concatenate([error, np.zeros((inputs, outputs))]), rcond=None)[0]
    change, shift = least_squares(torch.from_numpy(x), torch.from_numpy(error), intercept, ridge)
    np.testing.assert_allclose(change.numpy(), wanted[:inputs].T, atol=1e-8)
    np.testing.assert_allclose(shift.numpy() + np.zeros(outputs), wanted[inputs] if intercept else 0, atol=1e-8)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (2, 5)),
        (nn.Linear(5, 3), (2, 4, 6, 5)),
        (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
        (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 9, 8)),
        (nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular"), (2, 3, 5, 6)),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 6)),
        (nn.Conv3d(2, 4, 2, padding=1), (2, 2, 4, 3, 5)),
    ],
)
def test_weights_times_patches_are_outputs(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output = layer(x)
    rows = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    rows = rows.reshape(2, -1, layer.weight.shape[0])
    positions = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(1))[:5]
    got = patches(layer, x, positions) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(got, rows[:, positions].flatten(0, 1))


def _with_copies():
    """Half of the hidden channels are half the others, and what comes next adds them up: none is needed twice."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))
    with torch.no_grad():
        net[0].weight[8:], net[0].bias[8:] = net[0].weight[:8] / 2, net[0].bias[:8] / 2
    return net


def _images(samples=64):
    return torch.rand(samples, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(samples).long()


def test_what_others_can_stand_in_for_is_not_missed():
    net, (x, y) = _with_copies(), _images()
    wanted = net(x).detach()
    errors = {}
    for on in (False, True):
        context = Context(example_inputs=(x[:1],), calibration=(x[:32], y[:32]))
        settings = StructuredPruning(macs=0.5, importance="l1", reconstruct=on)
        small = settings.apply(copy.deepcopy(net), context)
        assert small[0].out_channels == 8
        errors[on] = float((small(x[32:]) - wanted[32:]).detach().square().mean() / wanted.var())
        assert any("refitted" in note for note in context.notes) == on
    assert errors[False] > 0.1
    assert errors[True] < 1e-3


def test_a_model_that_was_not_cut_stays_as_it_is():
    model, (x, _) = resnet_digits().eval(), _images()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    before = outputs_before(model, (x, x))
    state = copy.deepcopy(model.state_dict())
    kept = {name: torch.arange(outputs.shape[1]) for name, outputs in before.outputs.items()}
    assert set(kept) == {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    reconstruct(model, before, kept)
    first = "stem.0.weight"  # what stands behind it is given other statistics
    torch.testing.assert_close(model.state_dict()[first], state[first])


class _Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice, self.once = nn.Linear(6, 6), nn.Linear(6, 6)
        self.tied, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.grouped = nn.Conv1d(6, 6, 1, groups=2)

    def forward(self, x):
        x = self.once(self.twice(self.twice(x).relu()).relu())
        return self.grouped(self.other(self.tied(x).relu()).unsqueeze(2)).flatten(1)


def test_layers_that_no_other_weights_would_do_for_are_left_alone():
    x = torch.randn(16, 6)
    assert set(outputs_before(_Shared(), (x, x)).outputs) == {"once"}
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    mark(net, ["0.weight"])
    assert set(outputs_before(net, (x, x)).outputs) == {"1"}


def test_weights_that_do_not_help_on_other_samples_are_not_taken():
    layer, x = nn.Linear(6, 6), torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(layer)
    before = outputs_before(net, (x, x))
    before.outputs["0"].add_(torch.randn(16, 6, generator=torch.Generator().manual_seed(1)))
    state = state_sha256(net)
    note = reconstruct(net, before, {"0": torch.arange(6)})
    assert state_sha256(net) == state
    assert note.startswith("weights of 0 layers")


def test_large_samples_are_fewer():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, stride=8))
    assert len(outputs_before(net, _images(300)).x) == 256
    large = torch.zeros(1, 1, 512, 512).expand(40, 1, 512, 512)
    assert len(outputs_before(net, (large, torch.zeros(40))).x) == 32


def test_too_few_samples_or_none_are_said():
    net, (x, y) = _with_copies(), _images(7)
    assert outputs_before(net, (x, y)) is None
    context = Context(example_inputs=(x[:1],), calibration=(x, y))
    StructuredPruning(macs=0.5, reconstruct=True).apply(net, context)
    assert any("at least 8 calibration samples" in note for note in context.notes)
    with pytest.raises(DataError, match="reconstruct needs calibration data; give some, or leave it out"):
        StructuredPruning(reconstruct=True).apply(net, Context(example_inputs=(x[:1],)))
