"""Whether two models differ on the same samples: against scipy, and against resampling the samples themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from adaptkit.errors import DataError
from adaptkit.metrics.estimate import ALIKE, unbounded
from adaptkit.metrics.paired import Difference, accuracy_difference, difference, mcnemar_exact


@given(st.integers(0, 80), st.integers(0, 80))
def test_mcnemar_is_the_exact_binomial_test(lost, gained):
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar_exact(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_samples():
    assert mcnemar_exact(5000, 5200) == pytest.approx(binomtest(5000, 10_200, 0.5).pvalue, rel=1e-6)
    assert mcnemar_exact(0, 5000) == 0.0


def test_the_interval_is_that_of_resampled_samples():
    rng = np.random.default_rng(1)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.75
    found = difference(first.tolist(), second.tolist())
    assert found.accuracy == pytest.approx(second.mean() - first.mean())
    places = rng.integers(0, 400, size=(10_000, 400))
    draws = second[places].mean(1) - first[places].mean(1)
    assert accuracy_difference(found).ends == pytest.approx(np.quantile(draws, [0.025, 0.975]).tolist(), abs=0.004)


def test_the_interval_holds_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        lost, gained, _rest = rng.multinomial(500, [0.08, 0.05, 0.87]).tolist()
        shown = accuracy_difference(Difference(lost, gained, 500))
        held += shown.low <= -0.03 <= shown.high
    assert 0.91 < held / 300 < 0.99


def test_models_that_never_differ():
    same = difference([True, False], [True, False])
    assert accuracy_difference(same) == unbounded(0.0, ALIKE)
    assert mcnemar_exact(same.lost, same.gained) == 1


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_samples_must_be_the_same(first, second):
    with pytest.raises(DataError, match=f"one model saw {len(first)}, the other {len(second)}"):
        difference(first, second)
