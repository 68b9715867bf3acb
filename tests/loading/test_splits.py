from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.loading.splits import hold_out, split_train


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=80),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 3),
)
def test_each_class_gives_its_share(labels, share, seed):
    y = np.array(labels)
    wanted = min(len(y) - 1, max(1, round(share * len(y))))
    kept, held = hold_out(y, wanted, seed, "test", "x")
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(y)))
    assert len(held) == wanted
    for label in set(labels):
        exact = Fraction(int((y == label).sum()) * wanted, len(y))
        assert abs(int((y[held] == label).sum()) - exact) < 1


def test_seeds_and_names_draw_on_their_own():
    y = np.zeros(100, int)
    draws = {
        (seed, what): tuple(hold_out(y, 10, seed, what, "x")[1]) for seed in (0, 1) for what in ("test", "validation")
    }
    assert len(set(draws.values())) == 4
    assert draws[0, "test"] == tuple(hold_out(y, 0.1, 0, "test", "x")[1])


def test_validation_does_not_move_with_calibration():
    y = np.arange(100) % 3
    first, second = (split_train(y, 0.2, calibration, 0, "x") for calibration in (0.1, 30))
    assert first.validation.tolist() == second.validation.tolist()
    assert (len(first.calibration), len(second.calibration)) == (10, 30)
    assert len(split_train(y, 0, 5, 0, "x").validation) == 0
