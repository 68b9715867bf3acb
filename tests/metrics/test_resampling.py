"""Intervals against scipy, and by how often they hold."""

import numpy as np
import pytest
from scipy.stats import binomtest, t

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.intervals import around, exact_share
from adaptkit.metrics.resampling import bootstrap


@pytest.mark.parametrize(
    ("seen", "samples", "confidence"), [(0, 7, 0.95), (3, 50, 0.9), (40, 40, 0.99), (70, 200, 0.95)]
)
def test_exact_shares_are_those_of_scipy(seen, samples, confidence):
    found = exact_share(seen, samples, confidence)
    wanted = binomtest(seen, samples).proportion_ci(confidence, "exact")
    assert (found.value, found.low, found.high) == pytest.approx((seen / samples, wanted.low, wanted.high), abs=1e-9)
    assert found.method == "exact (Clopper-Pearson)"


def test_the_bootstrap_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    holds = 0
    for seed in range(200):
        found = bootstrap(np.mean, [rng.exponential(size=60)], draws=200, confidence=0.9, seed=seed)
        holds += found.low <= 1 <= found.high
    assert 0.83 < holds / 200 < 0.95


def test_the_bootstrap_is_of_the_statistic_and_of_the_seed():
    x = np.linspace(0, 1, 50)
    found = [bootstrap(np.mean, [x], draws=100, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    largest = bootstrap(np.max, [x], draws=100)
    assert (largest.value, largest.high) == (1, 1)
    assert largest.low < 1


@pytest.mark.parametrize("freedom", [4, 7, 13, 19, 50])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_students_interval_is_that_of_scipy(freedom, confidence):
    found = around(2.0, 0.5, freedom, confidence)
    width = 0.5 * t.ppf((1 + confidence) / 2, freedom)
    assert (found.low, found.high) == pytest.approx((2 - width, 2 + width), rel=0.01)


@pytest.mark.parametrize("confidence", [0, 1, -1, 95])
def test_what_is_no_confidence(confidence):
    for function in (
        lambda: exact_share(1, 2, confidence),
        lambda: bootstrap(np.mean, [np.ones(3)], confidence=confidence),
        lambda: around(0.0, 1.0, 5, confidence),
    ):
        with pytest.raises(AdaptkitError, match=r"confidence is between 0 and 1, such as 0\.95"):
            function()


def test_too_few():
    with pytest.raises(DataError, match="no samples"):
        exact_share(0, 0)
    with pytest.raises(DataError, match="at least 2 samples; got 1"):
        bootstrap(np.mean, [np.ones(1)])
