"""Bounds on a drop in accuracy and on a share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from adaptkit.metrics.bounds import drop_bound, share_bound


def likelihood_root(drop, lost, gained, samples):
    """z(θ) with the likeliest gain found by a search instead of the formula."""

    def unlikely(q):
        return -(lost * np.log(q + drop) + gained * np.log(q) + (samples - lost - gained) * np.log(1 - 2 * q - drop))

    inside = (max(0.0, -drop) + 1e-12, (1 - drop) / 2 - 1e-12)
    q = minimize_scalar(unlikely, bounds=inside, method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - samples * drop) / np.sqrt(samples * (2 * q + drop * (1 - drop)))


@given(lost=st.integers(1, 40), gained=st.integers(1, 40), more=st.integers(20, 2000))
def test_the_bound_is_where_the_score_falls_to_its_quantile(lost, gained, more):
    samples = lost + gained + more
    bound = drop_bound(lost, gained, samples, 0.95)
    assert bound > (lost - gained) / samples
    assert likelihood_root(bound, lost, gained, samples) == pytest.approx(-1.6449, abs=1e-3)


@pytest.mark.parametrize(
    ("p_lost", "p_gained", "samples"), [(0.02, 0.015, 5000), (0.002, 0.001, 1000), (0.05, 0.05, 300)]
)
def test_the_bound_holds_as_often_as_it_says(p_lost, p_gained, samples):
    draws = np.random.default_rng(0).multinomial(samples, [p_lost, p_gained, 1 - p_lost - p_gained], 2000)
    holds = np.mean([drop_bound(int(b), int(c), samples) >= p_lost - p_gained for b, c, _ in draws])
    assert 0.935 < holds < 0.975


def test_bounds_at_the_ends():
    assert drop_bound(0, 0, 0) == 1
    assert drop_bound(10, 0, 10) == pytest.approx(1)
    assert drop_bound(0, 10, 10) < 0
    assert drop_bound(0, 0, 100) > drop_bound(0, 0, 1000) > 0
    assert drop_bound(9, 5, 500, 0.99) > drop_bound(9, 5, 500, 0.9)


def test_bounds_are_those_of_scipy():
    for seen, samples, confidence in (
        (0, 10, 0.95),
        (3, 50, 0.9),
        (700, 1000, 0.975),
        (999, 1000, 0.95),
        (5, 40_000, 0.99),
    ):
        wanted = beta.ppf(confidence, seen + 1, samples - seen)
        assert share_bound(seen, samples, confidence) == pytest.approx(wanted, abs=1e-8)
    assert share_bound(5, 5) == 1.0
