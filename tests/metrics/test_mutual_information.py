"""Nearest neighbours against brute force, and both estimators against what is known of Gaussians."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.mutual_information import _ksg, info_nce, info_nce_lower_bound, ksg_mutual_information


def gaussians(correlation, samples, dimensions=1, seed=0):
    """x and z whose mutual information is −d/2 log(1 − r²)."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, samples, dimensions))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def known(correlation, dimensions=1):
    return -0.5 * dimensions * math.log(1 - correlation**2)


def brute_force(x, z, k):
    """Kraskov's equation 8 by loops over all pairs."""
    n, total = len(x), 0.0
    for i in range(n):
        near_x = [max(abs(a - b) for a, b in zip(x[i], x[j], strict=True)) for j in range(n) if j != i]
        near_z = [max(abs(a - b) for a, b in zip(z[i], z[j], strict=True)) for j in range(n) if j != i]
        radius = sorted(map(max, near_x, near_z))[k - 1]
        count_x, count_z = (sum(distance < radius for distance in near) for near in (near_x, near_z))
        total += digamma(count_x + 1) + digamma(count_z + 1)
    return digamma(k) + digamma(n) - total / n


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), k=st.integers(1, 5), sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_it_is_the_formula(seed, k, sizes):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, sizes[0]))
    z = rng.normal(size=(40, sizes[1])) + x[:, :1]
    assert _ksg(x, z, k) == pytest.approx(brute_force(x, z, k), abs=1e-12)


@pytest.mark.parametrize(("correlation", "dimensions"), [(0.0, 1), (0.6, 1), (0.9, 1), (0.5, 2)])
def test_gaussians_have_what_they_have(correlation, dimensions):
    x, z = gaussians(correlation, 1500, dimensions)
    assert ksg_mutual_information(x, z).value == pytest.approx(known(correlation, dimensions), abs=0.07)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_what_changes_nothing(seed):
    x, z = gaussians(0.7, 200, 2, seed)
    order = np.random.default_rng(seed).permutation(200)
    value = _ksg(x, z, 3)
    assert _ksg(z, x, 3) == pytest.approx(value)
    assert _ksg(x[order], z[order], 3) == pytest.approx(value)
    assert _ksg(2 * x[:, ::-1] + 1, 2 * z, 3) == pytest.approx(value)
    assert value <= digamma(200) - digamma(3)


def test_a_copy_reaches_the_largest_value_there_is():
    x, _ = gaussians(0, 300)
    assert ksg_mutual_information(x, x).value == pytest.approx(digamma(300) - digamma(3))


def test_the_interval_holds_as_often_as_it_says():
    holds = 0
    for seed in range(60):
        found = ksg_mutual_information(*gaussians(0.6, 200, seed=seed), seed=seed)
        holds += found.low <= known(0.6) <= found.high
        assert found == ksg_mutual_information(*gaussians(0.6, 200, seed=seed), seed=seed) if seed == 0 else True
    assert holds >= 52


def test_the_contrast_is_the_formula():
    scores = np.random.default_rng(0).normal(size=(6, 6))
    by_loops = sum(
        math.log(math.exp(scores[i, i]) / (sum(math.exp(scores[i, j]) for j in range(6)) / 6)) for i in range(6)
    )
    assert info_nce(torch.from_numpy(scores)) == pytest.approx(by_loops / 6)


@given(n=st.integers(2, 20), seed=st.integers(0, 1000), scale=st.floats(0, 1000))
def test_the_contrast_is_at_most_the_logarithm_of_the_batch(n, seed, scale):
    assert info_nce(scale * np.random.default_rng(seed).normal(size=(n, n))) <= math.log(n) + 1e-9


def test_the_bound_is_below_what_gaussians_have_and_not_far():
    truth = known(0.9)
    x, z = gaussians(0.9, 2000)
    found = info_nce_lower_bound(x, z, batch_size=32, epochs=15)
    assert found.low < truth
    assert truth - 0.25 < found.value < truth + 0.05
    assert found == info_nce_lower_bound(x, z, batch_size=32, epochs=15)


def test_the_bound_of_what_is_independent_is_not_above_zero():
    x, z = gaussians(0.0, 600)
    assert info_nce_lower_bound(x, z, batch_size=32, epochs=15).low <= 0


def test_the_bound_is_taken_on_samples_the_critic_did_not_see():
    """With more numbers than samples a critic learns its own half by heart."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 256, 300))
    assert info_nce_lower_bound(x, z, batch_size=16, epochs=30).value < 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ksg_mutual_information(np.ones(99), np.ones(99)), "x: 99 samples are too few, give at least 100"),
        (lambda: ksg_mutual_information(np.ones(100), np.ones(100), 20), "give at least 210"),
        (lambda: ksg_mutual_information(np.arange(100), np.arange(101)), "z: has 101 samples"),
        (lambda: ksg_mutual_information(np.arange(120) // 6, np.arange(120) // 6), "more copies.*distance_correlation"),
        (lambda: ksg_mutual_information(np.full(100, np.nan), np.ones(100)), "x: 100 of 100 samples hold NaN"),
        (lambda: ksg_mutual_information(np.arange(100), np.arange(100), 0), "neighbours is at least 1; got 0"),
        (lambda: info_nce(np.ones((2, 3))), r"n × n; got shape \(2, 3\)"),
        (lambda: info_nce(np.ones((1, 1))), "at least 2"),
        (lambda: info_nce_lower_bound(np.ones(100), np.ones(100)), "give at least 1024 or lower batch_size"),
        (lambda: info_nce_lower_bound(np.ones(100), np.ones(101)), "z: has 101 samples"),
        (lambda: info_nce_lower_bound(np.ones(100), np.ones(100), batch_size=1), "at least 2 pairs"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AdaptkitError, match=message):
        call()


def test_an_error_of_the_data_is_one():
    with pytest.raises(DataError):
        ksg_mutual_information(np.ones(3), np.ones(3))
