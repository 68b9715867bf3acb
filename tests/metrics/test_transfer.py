"""LEEP against loops, a linear probe against what it cannot know."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.datasets import load_digits

from adaptkit.errors import AdaptkitError
from adaptkit.metrics.resampling import percentile, resampled
from adaptkit.metrics.transfer import leep, leep_of, transfer_accuracy


def slow_leep(theta, y):
    """Nguyen et al. 2020, section 3, by loops."""
    n, sources = len(y), range(len(theta[0]))
    joint = {(c, z): sum(theta[i][z] for i in range(n) if y[i] == c) / n for c in set(y) for z in sources}
    marginal = [sum(joint[c, z] for c in set(y)) for z in sources]
    return (
        sum(
            math.log(sum(joint[y[i], z] / marginal[z] * theta[i][z] for z in sources if marginal[z] > 0))
            for i in range(n)
        )
        / n
    )


def test_leep_is_what_a_hand_computes():
    theta = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    # P(0 | z) = 17/18 and 1/4, P(1 | z) = 1/18 and 3/4.
    wanted = [0.9 * 17 / 18 + 0.1 / 4, 0.8 * 17 / 18 + 0.2 / 4, 0.1 / 18 + 0.9 * 3 / 4]
    assert leep(theta, np.array([0, 0, 1])).value == pytest.approx(np.mean(np.log(wanted)))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), sources=st.integers(2, 6), classes=st.integers(2, 4))
def test_leep_is_the_formula_and_between_its_ends(seed, sources, classes):
    rng = np.random.default_rng(seed)
    theta = softmax(3 * rng.normal(size=(25, sources)), axis=1)
    theta[:, 0], theta[:, 1] = 0, theta[:, 0] + theta[:, 1]  # a source class that is never the answer
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=25 - classes)])
    found = leep_of(theta, y)
    assert found == pytest.approx(slow_leep(theta.tolist(), y.tolist()))
    shares = np.bincount(y) / 25
    assert (shares * np.log(shares)).sum() - 1e-9 <= found <= 1e-9


def test_leep_does_not_see_the_numbers_of_classes_nor_the_order():
    rng = np.random.default_rng(0)
    theta, y = softmax(rng.normal(size=(40, 4)), axis=1), rng.integers(3, size=40)
    wanted = leep(theta, y).value
    order = rng.permutation(40)
    assert leep(theta, np.array([700, 5, 9])[y]).value == pytest.approx(wanted)
    assert leep(theta[order][:, ::-1].copy(), y[order]).value == pytest.approx(wanted)


def test_leep_is_zero_for_answers_that_tell_all_and_the_entropy_for_those_that_tell_nothing():
    y = np.arange(60) % 3
    assert leep(np.eye(3)[y], y).value == pytest.approx(0)
    assert leep(np.full((60, 5), 0.2), y).value == pytest.approx(-math.log(3))


@pytest.mark.parametrize(("classes", "samples"), [(2, 150), (12, 300)])
def test_the_interval_of_leep_holds_as_often_as_it_says(classes, samples):
    def sample(rng, count):
        y = rng.integers(classes, size=count)
        return softmax(rng.normal(size=(count, classes)) + 2.0 * np.eye(classes)[y], axis=1), y

    theta, y = sample(np.random.default_rng(99), 200_000)
    truth = leep_of(theta, y)
    drawn = [sample(np.random.default_rng(seed), samples) for seed in range(60)]
    found = [leep(*each, seed=seed) for seed, each in enumerate(drawn)]
    assert sum(each.low <= truth <= each.high for each in found) >= 52
    if classes == 12:  # many cells of P, few samples: plain quantiles of the draws miss the truth
        plain = [percentile(resampled(leep_of, each, 200), leep_of(*each)) for each in drawn[:30]]
        assert sum(each.low <= truth <= each.high for each in plain) < 24


def test_a_probe_is_judged_on_what_it_did_not_see():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 300)), np.arange(100) % 2
    assert transfer_accuracy(x, y).value < 0.8  # by heart it would be 1


def test_a_probe_of_digits():
    x, y = load_digits(return_X_y=True)
    found = transfer_accuracy(x, y)
    assert found.low > 0.93
    wanted = binomtest(round(found.value * 539), 539).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found == transfer_accuracy(torch.from_numpy(x).reshape(-1, 1, 8, 8), y + 3)
    assert transfer_accuracy(x, y, seed=1) != found


ONE, TWO = np.zeros(10, int), np.arange(10) % 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leep(np.eye(2)[TWO] * 3, TWO), "give the softmax of the logits"),
        (lambda: leep(np.array([[1.5, -0.5]] * 10), TWO), "at least 0 and sum to 1"),
        (lambda: leep(np.full((10, 2), 0.5), ONE), "y: all samples are of class 0; give samples of at least 2 classes"),
        (lambda: leep(np.full((10, 2), np.nan), TWO), "probabilities: 10 of 10 samples hold NaN"),
        (lambda: leep(np.full((9, 2), 0.5), TWO), "y: has 10 samples"),
        (lambda: leep(np.ones((10, 1)), TWO), "at least 2 classes"),
        (lambda: transfer_accuracy(np.ones((10, 2)), ONE), "y: all samples are of class 0"),
        (lambda: transfer_accuracy(np.ones((10, 2)), np.arange(10)), "10 samples of 10 classes, 1 of the rarest"),
        (lambda: transfer_accuracy(np.ones((10, 2)), TWO, held_out=0.1), "more samples on each side than classes"),
        (lambda: transfer_accuracy(np.ones((10, 2)), TWO, held_out=1), "held_out is between 0 and 1"),
        (lambda: transfer_accuracy(np.ones((10, 2)), TWO, strength=0), "strength above 0"),
        (lambda: transfer_accuracy(np.full((10, 2), np.inf), TWO), "features: 10 of 10 samples hold NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AdaptkitError, match=message):
        call()
