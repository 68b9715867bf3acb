"""The search for harm, against linear networks whose worst input is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, entropy
from torch import nn

from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.metrics.adversary import Attack, most_harm
from adaptkit.metrics.robustness import (
    kl_divergences,
    kl_robustness,
    kl_robustness_upper_bound,
    robust_accuracy_upper_bound,
)


def linear(weight):
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_divergences_are_those_of_scipy(seed):
    p, q = np.random.default_rng(seed).normal(size=(2, 5, 4)) * 3
    wanted = entropy(*(np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in (p, q)), axis=1)
    found = kl_divergences(p, q)
    assert found.tolist() == pytest.approx(wanted.tolist())
    assert kl_divergences(p, p + 7).tolist() == pytest.approx([0] * 5, abs=1e-12)


@pytest.mark.parametrize(("norm", "longest"), [("linf", 0.2 * 7), ("l2", 0.2 * 5)])
def test_the_worst_input_of_a_linear_network_is_found(norm, longest):
    model = linear([[3.0, 4.0], [0.0, 0.0]])  # the dual norms of (3, 4) are 7 and 5
    x = torch.full((3, 2), 0.5)
    worst, harm = most_harm(model, x, lambda output, _: -output[:, 0], Attack(0.2, norm))
    assert harm.tolist() == pytest.approx([-3.5 + longest] * 3, abs=0.02)
    assert torch.allclose(-model(worst)[:, 0], harm, atol=1e-5)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), radius=st.floats(0.01, 2), norm=st.sampled_from(["linf", "l2"]))
def test_what_is_found_is_in_the_ball_and_in_the_bounds(seed, radius, norm):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 3, 3, generator=generator)
    weight = torch.randn(9, generator=generator)
    worst, harm = most_harm(nn.Flatten(), x, lambda output, _: (output @ weight).sin(), Attack(radius, norm, steps=5))
    change = (worst - x).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= radius + 1e-5).all()
    assert ((worst >= 0) & (worst <= 1)).all()
    assert torch.allclose((worst.flatten(1) @ weight).sin(), harm, atol=1e-5)


def test_each_input_has_its_own_harm_over_batches():
    x, wanted = torch.rand(300, 2), torch.arange(300)
    seen = []

    def harm(output, samples):
        seen.append(samples)
        return output.sum(1) + samples

    _, found = most_harm(nn.Identity(), x, harm, Attack(0.1, steps=1, restarts=1))
    assert torch.cat(seen[::2]).tolist() == wanted.tolist()
    assert ((found - wanted) <= x.sum(1) + 0.2 + 1e-4).all()


def test_mode_and_gradients_of_the_model_are_as_before():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    most_harm(model, torch.rand(4, 2), lambda output, _: output[:, 0], Attack(0.1))
    assert model.training
    assert model[0].weight.grad is None


def test_more_starts_and_steps_find_no_less():
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.rand(20, 2)
    weak, strong = (
        kl_robustness_upper_bound(model, x, Attack(0.3, **effort)) for effort in ({"steps": 1, "restarts": 1}, {})
    )
    assert strong.value < weak.value


def test_the_bound_is_the_true_figure_where_that_is_known():
    """Two classes, one input: KL grows with the distance, so that the worst is at an end of the ball."""
    model, x = linear([[4.0], [0.0]]), torch.tensor([[0.5], [0.3]])

    def worst(value):
        p = 1 / (1 + math.exp(-4 * value))
        ends = (1 / (1 + math.exp(-4 * (value + step))) for step in (-0.1, 0.1))
        return max(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for q in ends)

    wanted = 2 / (worst(0.5) + worst(0.3))
    attack = Attack(0.1, restarts=10)  # enough for a start on either side
    found = kl_robustness_upper_bound(model, x, attack)
    assert found.value == pytest.approx(wanted, rel=1e-3)
    assert found == kl_robustness_upper_bound(model, x, attack)
    assert kl_robustness_upper_bound(model, x, Attack(0.1, restarts=1)).value > found.value


def test_a_network_that_always_says_the_same_gets_the_highest_figure():
    model = linear([[0.0, 0.0], [0.0, 0.0]])
    assert kl_robustness_upper_bound(model, torch.rand(4, 2), Attack(0.1)).value == 1e6


@given(st.lists(st.floats(0, 50), min_size=2, max_size=20))
def test_the_interval_of_the_inverse_is_inverted(values):
    found = kl_robustness(np.array(values))
    assert 0 <= found.low <= found.value <= found.high <= 1e6
    assert found.value == pytest.approx(1 / max(np.mean(values), 1e-6))


def test_robust_accuracy_of_a_linear_network_is_known():
    """Margins of x₀ over x₁ are changed by 2 · radius at most."""
    x = torch.tensor([[0.9, 0.1], [0.55, 0.45], [0.62, 0.38], [0.4, 0.6], [0.39, 0.6]])
    y = torch.tensor([0, 0, 0, 0, 1])
    found = robust_accuracy_upper_bound(nn.Identity(), x, y, Attack(0.1))
    for estimate, seen in ((found.clean, 4), (found.robust, 3)):
        wanted = binomtest(seen, 5).proportion_ci(0.95, "exact")
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((seen / 5, wanted.low, wanted.high))


def test_a_softmax_that_is_sure_hides_nothing():
    """The gradient of the cross entropy is zero here; that of the margin is not."""
    model = nn.Sequential(linear([[4000.0, 0.0], [0.0, 4000.0]]))
    x, y = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
    assert robust_accuracy_upper_bound(model, x, y, Attack(0.1)).robust.value == 0


X = torch.rand(3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Attack(0.1, "l1"), AdaptkitError, "norm is linf or l2; got 'l1'"),
        (lambda: Attack(0), AdaptkitError, "a radius and a step_size above 0.* radius=0"),
        (lambda: Attack(0.1, steps=0), AdaptkitError, "at least one step"),
        (lambda: Attack(0.1, restarts=0), AdaptkitError, "one start"),
        (
            lambda: kl_robustness_upper_bound(linear([[1.0, 0], [0, 1]]), X + 1, Attack(0.1)),
            DataError,
            "bounds from 0 to 1",
        ),
        (
            lambda: robust_accuracy_upper_bound(nn.Identity(), X, torch.tensor([0, 1, 2]), Attack(0.1)),
            DataError,
            "0 to 1",
        ),
        (
            lambda: robust_accuracy_upper_bound(nn.Identity(), X, torch.tensor([0, 1]), Attack(0.1)),
            DataError,
            "has 2 sam",
        ),
        (lambda: most_harm(nn.Identity(), X[:0], None, Attack(0.1)), DataError, "give at least one input"),
        (lambda: most_harm(nn.Identity(), X.long(), None, Attack(0.1)), DataError, "floating point.*int64"),
        (lambda: most_harm(nn.Identity(), X / 0, None, Attack(0.1)), DataError, "inputs hold NaN or infinities"),
        (lambda: kl_robustness(np.ones(1)), DataError, "1 samples are too few, give at least 2"),
        (lambda: kl_robustness(np.array([1, np.nan])), DataError, "worst: 1 of 2 samples hold NaN"),
        (lambda: kl_divergences(np.ones((2, 3)), np.ones((2, 4))), DataError, r"one shape; got \(2, 3\) and \(2, 4\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


class OneWay(torch.autograd.Function):
    """An operation whose author has written no derivative."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()


class Cut(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(2, 2)

    def forward(self, x):
        if self.kind == "nan":
            return x.log() * float("nan")
        if self.kind == "one way":
            return OneWay.apply(x)
        return self.layer(x.detach()) if self.kind == "own gradient" else x.detach()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "gives NaN"),
        ("own gradient", "no grad"),
        ("none", "no gradient"),
        ("one way", "no gradient comes back to the input: You must implement"),
    ],
)
def test_models_that_cannot_be_attacked(kind, message):
    with pytest.raises(ModelError, match=message):
        most_harm(Cut(kind), X, lambda output, _: output[:, 0], Attack(0.1))
