"""Dependence of smashed data on inputs: against slow formulas, and by what must not change it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import AdaptkitError
from adaptkit.metrics.privacy import distance_correlation, principal_components, smashed_mutual_information


def slow_distance_correlation(x, z):
    """U-centring and the sums by loops."""
    n = len(x)

    def centred(values):
        d = [[math.dist(a, b) for b in values] for a in values]
        sums = [sum(row) / (n - 2) for row in d]
        whole = sum(map(sum, d)) / ((n - 1) * (n - 2))
        return [[d[i][j] - sums[i] - sums[j] + whole if i != j else 0 for j in range(n)] for i in range(n)]

    a, b = centred(x), centred(z)

    def product(p, q):
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n))

    return product(a, b) / math.sqrt(product(a, a) * product(b, b))


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_distance_correlation_is_the_formula(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, 3))
    z = rng.normal(size=(50, 2)) + x[:, :2] ** 2
    assert distance_correlation(x, z).value == pytest.approx(slow_distance_correlation(x.tolist(), z.tolist()))


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_distance_correlation_does_not_see_moves_turns_and_scales(seed, scale):
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, 60, 3))
    z = x + noise
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    found = distance_correlation(x, z).value
    assert distance_correlation(z, scale * x @ turn + 5).value == pytest.approx(found)
    assert distance_correlation(x, scale * x @ turn + 5).value == pytest.approx(1)
    assert -1 <= found <= 1


def test_it_is_no_higher_in_many_dimensions():
    """The uncorrected one comes near 1 here."""
    x, z = np.random.default_rng(0).normal(size=(2, 60, 500))
    assert abs(distance_correlation(x, z).value) < 0.1


def test_it_sees_what_correlation_does_not():
    x = np.random.default_rng(0).normal(size=300)
    assert abs(np.corrcoef(x, x**2)[0, 1]) < 0.2
    assert distance_correlation(x, x**2).low > 0.1


def test_its_interval_holds_as_often_as_it_says():
    """For normal variables the squared distance correlation is known (Székely et al. 2007, theorem 7)."""
    r, holds = 0.7, 0

    def part(r):
        return r * math.asin(r) + math.sqrt(1 - r * r) - r * math.asin(r / 2) - math.sqrt(4 - r * r) + 1

    truth = part(r) / (1 + math.pi / 3 - math.sqrt(3))
    for seed in range(60):
        x, noise = np.random.default_rng(seed).normal(size=(2, 100))
        found = distance_correlation(x, r * x + math.sqrt(1 - r * r) * noise, seed=seed)
        holds += found.low <= truth <= found.high
    assert holds >= 52


def test_components_are_those_of_the_largest_variance():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(200, 2))
    x = hidden @ np.array([[10.0, 0, 0], [0, 5.0, 0]]) + 0.01 * rng.normal(size=(200, 3))
    found = principal_components("x", x, 2).numpy()
    assert np.cov(found.T, ddof=0) == pytest.approx(np.eye(2), abs=1e-6)
    assert abs(np.corrcoef(found[:, 0], hidden[:, 0])[0, 1]) > 0.98
    assert principal_components("x", x, 9).shape == (200, 3)
    assert principal_components("x", hidden @ np.ones((2, 7)), 5).shape == (200, 1)


def test_smashed_data_tell_less_the_more_noise_they_have():
    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(rng.normal(size=(500, 3)))
    images = (hidden @ torch.from_numpy(rng.normal(size=(3, 16)))).reshape(500, 1, 4, 4)
    sent = hidden @ torch.from_numpy(rng.normal(size=(3, 3)))
    noise = torch.from_numpy(rng.normal(size=(500, 3)))
    found = [smashed_mutual_information(images, sent + scale * noise, 3).value for scale in (0, 2, 100)]
    assert found[0] > found[1] + 0.3 > found[2] + 0.4
    assert abs(found[2]) < 0.1


def test_it_is_the_same_for_scaled_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    z = x + rng.normal(size=(200, 3))
    assert smashed_mutual_information(x, 1000 * z, 2).value == pytest.approx(smashed_mutual_information(x, z, 2).value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smashed_mutual_information(np.ones((100, 2)), np.ones((100, 2))), "inputs: all samples are the same"),
        (lambda: smashed_mutual_information(np.eye(100), np.ones((100, 2))), "activations: all samples are the same"),
        (lambda: smashed_mutual_information(np.eye(100), np.eye(101)), "activations: has 101 samples"),
        (lambda: smashed_mutual_information(np.eye(100), np.eye(100), 0), "dimensions is at least 1; got 0"),
        (lambda: smashed_mutual_information(np.eye(20), np.eye(20)), "too few, give at least 100"),
        (lambda: distance_correlation(np.eye(49), np.eye(49)), "x: 49 samples are too few, give at least 50"),
        (lambda: distance_correlation(np.eye(50), np.eye(51)), "z: has 51 samples"),
        (lambda: distance_correlation(np.eye(50), np.ones(50)), "z: all samples are the same"),
        (lambda: distance_correlation(np.full((50, 2), np.nan), np.ones(50)), "x: 50 of 50 samples hold NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AdaptkitError, match=message):
        call()
