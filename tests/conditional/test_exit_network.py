"""Networks with exits: their heads, what they learn from, and what stays as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import nn

from adaptkit.conditional.exit_network import ExitNetwork
from adaptkit.conditional.exit_training import best_temperature, exits_loss
from adaptkit.conditional.heads import make_head
from adaptkit.errors import ModelError


@given(
    channels=st.integers(1, 9),
    height=st.integers(1, 35),
    width=st.integers(1, 35),
    kind=st.sampled_from(["linear", "convolution"]),
)
def test_a_head_fits_every_size_of_map(channels, height, width, kind):
    head = make_head((channels, height, width), 7, kind, 8).eval()
    assert head(torch.zeros(2, channels, height, width)).shape == (2, 7)
    assert head[-1].in_features <= 49 * max(channels, 8)


@pytest.mark.parametrize("shape", [(6,), (9, 6)])
def test_a_head_fits_vectors_and_tokens(shape):
    assert make_head(shape, 7)(torch.randn(2, *shape)).shape == (2, 7)


def test_four_dimensions_have_no_head():
    with pytest.raises(ModelError, match="maps, tokens or vectors; here are 4"):
        make_head((1, 2, 3, 4), 7)


def network(frozen=False):
    trunk = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return ExitNetwork(trunk, {"2": nn.Linear(8, 3), "4": nn.Linear(8, 3)}, frozen)


def test_answers_are_the_trunks_and_the_heads():
    model, x = network().eval(), torch.randn(5, 6)
    final, first, second = model(x)
    assert torch.equal(final, model.trunk(x))
    assert torch.equal(first, model.heads[0](model.trunk[:3](x)))
    assert torch.equal(second, model.heads[1](model.trunk[:5](x)))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_frozen_trunk_gets_no_gradient_and_keeps_its_statistics():
    model = network(frozen=True).train()
    before = {name: value.clone() for name, value in model.trunk.state_dict().items()}
    sum(answer.sum() for answer in model(torch.randn(5, 6))).backward()
    assert all(parameter.grad is None for parameter in model.trunk.parameters())
    assert all(parameter.grad is not None for parameter in model.heads.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.trunk.state_dict().items())


def test_some_of_the_exits():
    model, x = network().eval(), torch.randn(5, 6)
    final, second = model.keep(("4",))(x)
    assert torch.equal(final, model(x)[0])
    assert torch.equal(second, model(x)[2])


def by_hand(logits, behind, y, temperature, alpha):
    hard = -log_softmax(logits, axis=1)[np.arange(len(y)), y].mean()
    p, q = softmax(behind / temperature, axis=1), log_softmax(logits / temperature, axis=1)
    soft = (p * (np.log(p) - q)).sum(axis=1).mean()
    return (1 - alpha) * hard + alpha * temperature**2 * soft


@pytest.mark.parametrize("teacher", [None, nn.Linear(6, 3)], ids=["targets", "teacher"])
@pytest.mark.parametrize("last", [True, False], ids=["joint", "heads"])
def test_the_loss_is_the_documented_sum(teacher, last):
    model, x, y = network(frozen=not last).double().eval(), torch.randn(9, 6).double(), torch.arange(9) % 3
    teacher = teacher and teacher.double()
    with torch.no_grad():
        value, shown = exits_loss(0.3, 2.0, 0.7, teacher, last)(model, x, y)
        final, *exits = (answer.numpy() for answer in model(x))
        wanted = sum(0.7 * by_hand(exit_, final, y.numpy(), 2.0, 0.3) for exit_ in exits)
        if last and teacher is not None:
            wanted += by_hand(final, teacher(x).numpy(), y.numpy(), 2.0, 0.3)
        elif last:
            wanted += by_hand(final, final, y.numpy(), 2.0, 0.0)
    assert float(value) == pytest.approx(wanted, rel=1e-9)
    assert np.array_equal(shown.numpy(), final if last else exits[-1])


def test_the_last_answer_does_not_learn_from_its_exits():
    model, x, y = network().eval(), torch.randn(9, 6), torch.arange(9) % 3
    exits_loss(1.0, 2.0, 1.0, None, last=True)(model, x, y)[0].backward()
    together = model.trunk[5].weight.grad.clone()
    model.zero_grad()
    nn.functional.cross_entropy(model.trunk(x), y).backward()
    torch.testing.assert_close(together, model.trunk[5].weight.grad)


@given(seed=st.integers(0, 1000), scale=st.floats(0.3, 6))
def test_the_temperature_is_the_likeliest(seed, scale):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(200, 4))
    y = np.array([random.choice(4, p=row) for row in softmax(logits, axis=1)])
    logits *= scale

    def loss(t):
        return -log_softmax(logits / t, axis=1)[np.arange(200), y].mean()

    wanted = minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x
    found = best_temperature(torch.from_numpy(logits), torch.from_numpy(y))
    assert found == pytest.approx(wanted, rel=1e-2)
