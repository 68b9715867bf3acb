"""Differences of two models on the same samples: against resampling them slowly, and by how often intervals hold."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from adaptkit.errors import DataError
from adaptkit.metrics import METRICS, measure
from adaptkit.metrics.measured import Outputs, measure_difference
from adaptkit.metrics.transfer import leep_of

RNG = np.random.default_rng(0)
SAMPLES, CLASSES = 240, 12
TARGET = RNG.integers(CLASSES, size=SAMPLES)
FIRST = 1.5 * (RNG.normal(size=(SAMPLES, CLASSES)) + 1.5 * np.eye(CLASSES)[TARGET])
SECOND = FIRST + 0.8 * RNG.normal(size=FIRST.shape)
TWO = TARGET % 2
NUMBERS = {"mse", "rmse", "mae", "max_error", "r2", "explained_variance"}


def given(name):
    """Two models' answers, and the truth, in the form that a metric takes."""
    if name in NUMBERS:
        return TARGET + FIRST[:, 0], TARGET + SECOND[:, 1], TARGET.astype(float)
    if name == "nll":
        return np.log(softmax(FIRST, 1)), np.log(softmax(SECOND, 1)), TARGET
    if name.endswith("_positive"):
        return FIRST[:, :2], SECOND[:, :2], TWO
    return FIRST, SECOND, TARGET


@pytest.mark.parametrize("name", METRICS)
def test_a_difference_is_that_of_the_values_and_turns_with_the_order(name):
    first, second, target = given(name)
    found = measure_difference([name], first, second, target)[name]
    values = [measure([name], each, target)[name].value for each in (first, second)]
    assert found.value == pytest.approx(values[1] - values[0], abs=1e-12)
    assert (found.samples, found.higher_is_better) == (len(target), METRICS[name].higher_is_better)
    turned = measure_difference([name], second, first, target)[name]
    assert turned.value == pytest.approx(-found.value)
    if name == "max_error":
        assert (found.low, found.high, found.interval) == (None, None, "none: no sample bounds a maximum")
        return
    assert found.low <= found.value <= found.high
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high), abs=0.15 * (found.high - found.low))


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"max_error", "leep"}))
def test_the_interval_is_as_wide_as_the_spread_of_samples_drawn_anew(name):
    """Drawn with both answers: apart, the spread of most of these would be half as wide again, or more."""
    first, second, target = given(name)
    rng, draws = np.random.default_rng(1), []
    while len(draws) < 150:
        rows = rng.integers(len(target), size=len(target))
        # Values alone, so that no bootstrap runs inside of this one.
        before, after = (value(name, each[rows], target[rows]) for each in (first, second))
        draws.append(after - before)
    found = measure_difference([name], first, second, target)[name]
    assert (found.high - found.low) / (2 * 1.96 * np.std(draws)) == pytest.approx(1, abs=0.2)


def value(name, outputs, target):
    from adaptkit import metrics
    from adaptkit.metrics.forms import FORMS

    shown = FORMS[METRICS[name].needs](outputs)
    if name.startswith("top"):
        return metrics.top_k(shown, target, int(name[3:]))
    if name.endswith("_positive"):
        return getattr(metrics, name.removesuffix("_positive"))(shown, target, positive=1)
    if name == "cross_entropy":
        return metrics.nll(shown, target)
    return getattr(metrics, name)(shown, target)


@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "cross_entropy"])
def test_the_interval_of_a_difference_holds_as_often_as_it_says(name):
    def sample(rng, count):
        y = rng.integers(3, size=count)
        common = rng.normal(size=(count, 3))
        first, second = (common + 0.5 * rng.normal(size=(count, 3)) + lift * np.eye(3)[y] for lift in (1.0, 1.2))
        return first, second, y

    first, second, y = sample(np.random.default_rng(99), 100_000)
    truth = value(name, second, y) - value(name, first, y)
    held = 0
    for seed in range(80):
        found = measure_difference([name], *sample(np.random.default_rng(seed), 200))[name]
        held += found.low <= truth <= found.high
    assert 70 <= held <= 80


def test_the_draws_of_a_difference_in_leep_are_reflected_at_its_value():
    theta = softmax(FIRST, 1), softmax(SECOND, 1)
    rng, draws = np.random.default_rng(0), []
    for _ in range(500):
        rows = rng.integers(SAMPLES, size=SAMPLES)
        draws.append(leep_of(theta[1][rows], TARGET[rows]) - leep_of(theta[0][rows], TARGET[rows]))
    found = measure_difference(["leep"], FIRST, SECOND, TARGET)["leep"]
    low, high = (2 * found.value - np.quantile(draws, side) for side in (0.975, 0.025))
    assert (found.low, found.high) == pytest.approx((min(low, found.value), max(high, found.value)), abs=0.003)
    assert abs(np.mean(draws) - found.value) > 0.01


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"max_error"}))
def test_models_that_never_differ_have_no_interval(name):
    first, _, target = given(name)
    found = measure_difference([name], first, first, target)[name]
    assert (found.value, found.low, found.high, found.interval) == (0, None, None, "none: all resamples are alike")


@pytest.mark.parametrize(
    ("name", "first", "second", "target", "message"),
    [
        ("f1", FIRST, SECOND[:9], TARGET, "^f1: target: has 240 samples, what belongs to them has 9"),
        ("rmse", FIRST, SECOND, TARGET, "^rmse: needs a model with exactly 1 output a sample; this one has 12"),
        (
            "roc_auc",
            FIRST,
            SECOND,
            TARGET * 0,
            "^roc_auc: ROC AUC compares classes, and all 240",
        ),
        ("leep", FIRST, SECOND, TARGET * 0, "^leep: y: all samples are of class 0"),
        ("cross_entropy", np.eye(2)[[0, 1]], np.eye(2)[[1, 0]], [0, 1], "infinitely wrong on a sample"),
        ("f2", FIRST, SECOND, TARGET, "no metric is called 'f2'"),
    ],
)
def test_what_has_no_difference(name, first, second, target, message):
    with pytest.raises(DataError, match=message):
        measure_difference([name], first, second, np.asarray(target))


def test_batches_are_put_together():
    one, other = Outputs(), Outputs()
    for part in (slice(0, 100), slice(100, None)):
        one.add(FIRST[part], TARGET[part])
        other.add(SECOND[part], TARGET[part])
    assert other.measure_against(["f1"], one) == measure_difference(["f1"], FIRST, SECOND, TARGET)
    assert math.isfinite(other.measure_against(["f1"], one)["f1"].value)
