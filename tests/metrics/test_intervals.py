"""Intervals hold what they are of as often as they say: exactly where that can be summed, else by simulation."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

from adaptkit.metrics.calibration import gaps
from adaptkit.metrics.classification import f1_of
from adaptkit.metrics.estimate import ALIKE, FEW, unbounded
from adaptkit.metrics.intervals import absolute_sum, at_least, delong, exact_share
from adaptkit.metrics.resampling import percentile, resampled, resampled_counts

FEWER = 200
"""Resamples of a simulation."""


def holds(intervals, truth):
    return np.mean([found.low <= truth <= found.high for found in intervals])


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.97])
def test_exact_intervals_hold_at_least_as_often_as_they_say(p):
    found = [exact_share(seen, 30) for seen in range(31)]
    chance = sum(binom.pmf(seen, 30, p) for seen, each in enumerate(found) if each.low <= p <= each.high)
    assert chance >= 0.95
    assert p != 0.5 or chance < 0.98


def test_the_percentile_interval_of_a_mean_holds_as_often_as_it_says():
    draws = np.random.default_rng(1).exponential(size=(300, 120))
    found = [
        percentile(resampled(lambda part: float(part.mean()), [draw], FEWER), float(draw.mean())) for draw in draws
    ]
    assert 0.90 < holds(found, 1.0) < 0.98


def test_the_percentile_interval_of_f1_holds_as_often_as_it_says():
    cells = np.array([[0.40, 0.05, 0.02], [0.04, 0.25, 0.03], [0.01, 0.05, 0.15]])
    truth = np.mean([2 * cells[k, k] / (cells[k].sum() + cells[:, k].sum()) for k in range(3)])
    draws = np.random.default_rng(2).multinomial(250, cells.ravel(), 300).reshape(-1, 3, 3)
    found = [percentile(resampled_counts(f1_of, draw, FEWER), f1_of(draw)) for draw in draws]
    assert 0.91 < holds(found, truth) < 0.98


GAPS = {
    "none": [0.0],
    "small": [0.03],
    "large": [0.15],
    "mixed": [0.1, -0.05, 0.0, 0.02],
}


@pytest.mark.parametrize("gap", GAPS)
def test_the_interval_of_the_calibration_error_holds_in_spite_of_its_bias(gap):
    rng = np.random.default_rng(3)
    sure = rng.uniform(0.6, 0.9333, (200, 400))  # five bins, filled evenly
    place = np.minimum(((sure - 0.6) * 15).astype(int), 4)
    shifts = np.resize(GAPS[gap], 5)
    right = rng.random(sure.shape) < sure - shifts[place]
    draws = [resampled(gaps, pair, FEWER) for pair in zip(sure, right, strict=True)]
    parts = [gaps(*pair) for pair in zip(sure, right, strict=True)]
    found = [absolute_sum(*pair) for pair in zip(draws, parts, strict=True)]
    truth = np.mean(np.abs(shifts))
    assert holds(found, truth) > 0.925
    assert np.mean([each.high - each.low for each in found]) < 0.1
    # What is corrected here is what the plain quantiles get wrong.
    plain = [
        percentile([np.abs(each).sum() for each in draw], np.abs(part).sum())
        for draw, part in zip(draws, parts, strict=True)
    ]
    assert gap == "large" or holds(plain, truth) < 0.9


def two_classes(rng, many, others, distance):
    scores = np.concatenate([rng.normal(distance, 1, many), rng.normal(0, 1, others)])
    return np.stack([-scores, scores], axis=1), np.repeat([1, 0], [many, others])


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_the_interval_of_the_auc_holds_as_often_as_it_says(distance):
    rng = np.random.default_rng(4)
    truth = NormalDist().cdf(distance / math.sqrt(2))
    found = [delong(*two_classes(rng, 40, 60, distance)) for _ in range(300)]
    assert 0.915 < holds(found, truth) < 0.985


def test_the_interval_of_an_average_auc_is_as_wide_as_that_of_resampled_classes():
    rng = np.random.default_rng(5)
    target = np.repeat([0, 1, 2], [50, 80, 120])
    scores = np.round(rng.normal(size=(250, 3)) + 1.2 * np.eye(3)[target], 1)

    def area(rows):
        found = []
        for of in range(3):
            own, others = scores[rows, of][target[rows] == of], scores[rows, of][target[rows] != of]
            found.append(np.mean((own[:, None] > others) + 0.5 * (own[:, None] == others)))
        return np.mean(found)

    places = [np.flatnonzero(target == of) for of in range(3)]
    draws = [area(np.concatenate([rng.choice(each, len(each)) for each in places])) for _ in range(400)]
    shown = delong(scores, target)
    low, high = shown.low, shown.high
    assert shown.value == pytest.approx(area(np.arange(250)))
    middle = sum(math.log(end / (1 - end)) for end in (low, high)) / 2
    assert 1 / (1 + math.exp(-middle)) == pytest.approx(area(np.arange(250)), abs=1e-9)
    assert high - low == pytest.approx(2 * 1.96 * np.std(draws), rel=0.1)


def test_where_nothing_can_be_said_nothing_is():
    right = np.ones(50, bool)
    assert percentile(resampled(lambda part: float(part.mean()), [right]), 1.0) == unbounded(1.0, ALIKE)
    assert absolute_sum([np.array([0.5, 0.1])] * 200, np.array([0.5, 0.1])) == unbounded(0.6, ALIKE)
    assert percentile([0.1] * 99, 0.1) == unbounded(0.1, FEW)
    assert delong(np.eye(2)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])) == unbounded(1.0, ALIKE)
    assert delong(np.eye(2)[[0, 1, 1]], np.array([0, 1, 1])) == unbounded(1.0, FEW)
    assert at_least(3.0).ends == (3.0, None)
    assert unbounded(3.0, FEW).ends == (None, None)


def test_an_interval_holds_its_value_and_stays_in_range():
    assert percentile([float(i) for i in range(200)], 500.0).high == 500
    assert percentile([float(i) for i in range(200)], -1.0).low == -1
    draws = list(np.random.default_rng(0).normal(0.99, 0.02, (200, 1)))
    assert absolute_sum(draws, np.array([0.99])).high == 1
    assert absolute_sum([1 - each for each in draws], np.array([0.01])).low == 0
    assert percentile([math.inf] * 150 + [1.0] * 50, math.inf).ends == (1.0, None)


def test_draws_repeat_and_depend_on_the_seed():
    values = np.arange(30.0)
    one = resampled(np.mean, [values], 50)
    assert one == resampled(np.mean, [values], 50) != resampled(np.mean, [values], 50, seed=1)
    table = np.array([[5, 3], [0, 2]])
    tables = []
    resampled_counts(lambda drawn: tables.append(drawn) or 0.0, table, 50)
    assert {drawn.sum() for drawn in tables} == {10}
    assert {drawn[1, 0] for drawn in tables} == {0}
    assert np.mean(tables, axis=0) == pytest.approx(table, abs=1)


def test_rows_are_drawn_together():
    values = np.arange(100)
    drawn = []
    resampled(lambda one, other: drawn.append((one == other).all() and len(one)) or 0.0, [values, values.copy()], 20)
    assert drawn == [100] * 20
