"""What it costs to reach a target, against counting run by run."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import CensoredData, ecdf

from adaptkit.errors import DataError
from adaptkit.metrics import Point, cost_to_target
from adaptkit.metrics.convergence import survival_median


def curve(*values, step=10):
    return [Point(value, steps=step * place) for place, value in enumerate(values, 1)]


def test_every_cost_that_was_counted():
    runs = [
        [Point(0.2, 100, 1, 5e3, seconds=2.0), Point(0.9, 200, 2, 9e3, seconds=4.5)],
        [Point(0.8, 100, 1, 4e3, seconds=2.5), Point(0.9, 200, 2, 8e3, seconds=4.0)],
        [Point(0.1, 100, 1, 4e3, seconds=1.0), Point(0.3, 200, 2, 8e3, seconds=3.0)],
    ]
    found = cost_to_target(runs, 0.8)
    assert list(found) == ["steps", "rounds", "bytes", "seconds"]
    assert {name: each.median_reached for name, each in found.items()} == {
        "steps": 150.0, "rounds": 1.5, "bytes": 6500.0, "seconds": 3.5,
    }  # fmt: skip
    assert {name: each.horizon for name, each in found.items()} == {
        "steps": 200.0, "rounds": 2.0, "bytes": 8000.0, "seconds": 3.0,
    }  # fmt: skip
    assert found["seconds"].restricted_mean == pytest.approx((3 + 2.5 + 3) / 3)
    assert {each.reached for each in found.values()} == {2}
    steps_alone = [[Point(point.value, steps=point.steps) for point in run] for run in runs]
    assert list(cost_to_target(steps_alone, 0.8)) == ["steps"]


def test_runs_that_never_arrive_are_not_averaged_away():
    fast, never = curve(0.9, 0.9), curve(0.1, 0.2, 0.3, 0.4)
    found = cost_to_target([fast, never, never, never], 0.8)["steps"]
    assert (found.runs, found.reached, found.median_reached) == (4, 1, 10.0)
    assert found.median is None
    assert found.restricted_mean == (10 + 3 * 40) / 4
    assert found.share.value == 0.25
    assert found.share.ends == pytest.approx((0.0063, 0.8059), abs=1e-4)  # Clopper-Pearson of one in four
    nobody = cost_to_target([never] * 3, 0.8)["steps"]
    assert (nobody.reached, nobody.median_reached, nobody.median, nobody.restricted_mean) == (0, None, None, 40.0)
    all_there = cost_to_target([fast, curve(0.1, 0.9), curve(0.1, 0.2, 0.9)], 0.8)["steps"]
    assert (all_there.median, all_there.median_reached, all_there.restricted_mean) == (20.0, 20.0, 20.0)
    assert all_there.horizon == 30


def test_a_run_that_was_stopped_early_counts_as_longer_than_its_budget():
    found = cost_to_target([curve(0.1), curve(0.1, 0.9), curve(0.1, 0.1, 0.9), curve(0.1, 0.1, 0.1, 0.9)], 0.8)["steps"]
    assert (found.reached, found.horizon, found.restricted_mean) == (3, 10.0, 10.0)
    assert found.median == 30  # of those under way after 10 steps
    found = cost_to_target([curve(0.1, 0.1), curve(0.1, 0.1, 0.1), curve(0.9)], 0.8)["steps"]
    assert (found.horizon, found.restricted_mean) == (20.0, (20 + 20 + 10) / 3)


def test_the_direction_and_a_lucky_point():
    lucky = curve(0.1, 0.9, 0.3, 0.9, 0.9, 0.9)
    assert cost_to_target([lucky] * 3, 0.8)["steps"].median == 20
    assert cost_to_target([lucky] * 3, 0.8, hold=3)["steps"].median == 40
    assert cost_to_target([lucky] * 3, 0.8, hold=4)["steps"].reached == 0
    falling = curve(2.0, 1.0, 0.5)
    assert cost_to_target([falling] * 3, 1.0, higher_is_better=False)["steps"].median == 20
    assert cost_to_target([falling] * 3, 1.0)["steps"].median == 10


def test_a_run_that_diverges_reaches_nothing():
    for upward in (True, False):
        found = cost_to_target([curve(math.nan, math.nan)] * 3, 0.5, higher_is_better=upward)["steps"]
        assert found.reached == 0


@settings(max_examples=60)
@given(
    runs=st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=3, max_size=12),
)
def test_the_median_is_that_of_the_survival_curve(runs):
    spent, reached = zip(*runs, strict=True)
    arrived = [each for each, there in runs if there]
    if not arrived:
        assert survival_median(spent, reached) is None
        return
    stopped = [each for each, there in runs if not there]
    estimate = ecdf(CensoredData(uncensored=arrived, right=stopped)).sf
    below = [cost for cost, left in zip(estimate.quantiles, estimate.probabilities, strict=True) if left <= 0.5 + 1e-9]
    assert survival_median(spent, reached) == (min(below) if below else None)


@settings(max_examples=30)
@given(places=st.lists(st.integers(1, 6), min_size=3, max_size=9))
def test_without_a_failure_all_three_are_the_ordinary_ones(places):
    runs = [curve(*[0.0] * (place - 1), 1.0) for place in places]
    found = cost_to_target(runs, 0.5)["steps"]
    assert found.reached == len(places)
    assert found.restricted_mean == pytest.approx(10 * np.mean(places))
    assert found.median_reached == 10 * np.median(places)
    assert found.median == 10 * sorted(places)[(len(places) - 1) // 2]


@pytest.mark.parametrize(
    ("runs", "hold", "message"),
    [
        ([curve(0.9)] * 2, 1, "takes 3 seeds or more; got 2: one run tells nothing of the next"),
        ([curve(0.9), [], curve(0.9)], 1, "run 1 has 0 points; it takes one or more"),
        ([curve(0.9)] * 3, 2, "run 0 has 1 points; it takes one or more, and at least hold=2"),
        ([curve(0.9)] * 3, 0, "at least hold=0"),
        ([[Point(0.9)]] * 3, 1, "no cost is given by every point: give steps, rounds, bytes, seconds"),
        ([[Point(0.1, steps=20), Point(0.9, steps=10)]] * 3, 1, "steps of run 0 fall along the curve"),
        ([[Point(0.9, seconds=-1.0)]] * 3, 1, "seconds of run 0 fall along the curve, or begin below 0"),
        ([[Point(0.9, bytes=math.nan)]] * 3, 1, "bytes of run 0 fall"),
    ],
)
def test_what_is_no_set_of_curves(runs, hold, message):
    with pytest.raises(DataError, match=message):
        cost_to_target(runs, 0.8, hold=hold)
