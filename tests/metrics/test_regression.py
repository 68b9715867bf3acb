"""Errors of numbers, against sums in plain Python."""

import math
from statistics import fmean, pvariance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import DataError
from adaptkit.metrics import explained_variance, mae, max_error, mse, r2, rmse

numbers = st.floats(-100, 100).map(lambda number: round(number, 6))  # the square of a smaller one can be 0
few = settings(max_examples=40)


@few
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_errors_are_those_summed_by_hand(pairs):
    found, true = zip(*pairs, strict=True)
    errors = [a - b for a, b in pairs]
    assert mse(found, true) == pytest.approx(fmean(error**2 for error in errors))
    assert rmse(found, true) == pytest.approx(math.sqrt(fmean(error**2 for error in errors)))
    assert mae(found, true) == pytest.approx(fmean(map(abs, errors)))
    assert max_error(found, true) == max(map(abs, errors))
    assert 0 <= mae(found, true) <= rmse(found, true) * (1 + 1e-12) <= max_error(found, true) * (1 + 1e-9) + 1e-12
    column = np.array(found)[:, None]
    assert mae(column, true) == mae(found, true)


@few
@given(seed=st.integers(0, 10_000), offset=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_shares_of_variance_are_those_summed_by_hand(seed, offset, scale):
    rng = np.random.default_rng(seed)
    true, found = rng.normal(size=(2, int(rng.integers(2, 30))))
    spread = pvariance(true.tolist()) * len(true)
    wanted = 1 - math.fsum((found - true) ** 2) / spread
    assert r2(found, true) == pytest.approx(wanted)
    assert r2(found * scale + offset, true * scale + offset) == pytest.approx(wanted)
    explained = 1 - pvariance((true - found).tolist()) / pvariance(true.tolist())
    assert explained_variance(found, true) == pytest.approx(explained)
    assert explained_variance(found + offset, true) == pytest.approx(explained)
    assert r2(found, true) <= explained_variance(found, true) + 1e-12 <= 1 + 1e-12


def test_the_mean_explains_nothing_and_the_truth_all():
    true = [1.0, 2.0, 6.0]
    assert r2([3.0, 3.0, 3.0], true) == pytest.approx(0)
    assert r2(true, true) == explained_variance(true, true) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mse([], []), "outputs: 0 samples are too few, give at least 1"),
        (lambda: mae([1.0], [1.0, 2.0]), "target: has 2 samples, what belongs to them has 1"),
        (lambda: rmse([1.0, math.nan], [1.0, 2.0]), "outputs: 1 of 2 samples hold NaN or infinity, first at sample 1"),
        (
            lambda: max_error([1.0, 2.0], [math.inf, 2.0]),
            "target: 1 of 2 samples hold NaN or infinity",
        ),
        (lambda: mse([[1.0, 2.0]], [1.0]), r"outputs: give one number a sample, N or N × 1; got shape \(1, 2\)"),
        (lambda: r2([1.0, 2.0], [3.0, 3.0]), "R² needs targets that differ; all 2 are 3"),
        (lambda: explained_variance([1.0], [3.0]), "explained variance needs targets that differ; all 1 are 3"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(DataError, match=message):
        call()
