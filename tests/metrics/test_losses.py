"""Losses and calibration, against loops over plain numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import DataError
from adaptkit.metrics import cross_entropy, ece, kl, nll, reliability

seeds = st.integers(0, 10_000)
few = settings(max_examples=30)


def drawn(seed, classes=None):
    """Logits of some samples, and their classes."""
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(1, 40)), int(rng.integers(2, 7))
    return rng.normal(0, 3, (count, classes)), rng.integers(classes, size=count)


def softmax(row):
    total = math.fsum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@few
@given(seed=seeds, shift=st.floats(-500, 500))
def test_cross_entropy_is_the_mean_surprise(seed, shift):
    logits, target = drawn(seed)
    wanted = math.fsum(-math.log(softmax(row)[true]) for row, true in zip(logits, target, strict=True)) / len(target)
    assert cross_entropy(logits, target) == pytest.approx(wanted)
    assert cross_entropy(logits + shift, target) == pytest.approx(wanted)
    assert nll(np.log([softmax(row) for row in logits]), target) == pytest.approx(wanted)
    assert kl(np.log([softmax(row) for row in logits]), target) == pytest.approx(wanted)


def test_scores_too_large_for_an_exponential():
    assert cross_entropy([[1000.0, 0.0], [0.0, 1000.0]], [0, 0]) == pytest.approx(500)


@few
@given(seed=seeds)
def test_divergence_is_the_mean_of_p_log_p_over_q(seed):
    logits, _ = drawn(seed)
    others = np.random.default_rng(seed + 1).normal(0, 2, logits.shape)
    q, p = np.array([softmax(row) for row in logits]), np.array([softmax(row) for row in others])
    p[0] = np.eye(p.shape[1])[0]  # 0 log 0 is 0
    terms = [
        math.fsum(a * math.log(a / b) for a, b in zip(*rows, strict=True) if a > 0) for rows in zip(p, q, strict=True)
    ]
    assert kl(np.log(q), p) == pytest.approx(sum(terms) / len(terms))
    assert kl(np.log(q), q) == pytest.approx(0, abs=1e-12)
    assert kl(np.log(q), p) >= 0


def test_a_truth_that_was_held_impossible_costs_infinitely_much():
    logs = np.array([[0.0, -math.inf], [math.log(0.5), math.log(0.5)]])
    assert nll(logs, [1, 0]) == kl(logs, [[0.5, 0.5], [0.5, 0.5]]) == math.inf
    assert nll(logs, [0, 0]) == pytest.approx(math.log(2) / 2)
    assert kl(logs, [[1.0, 0.0], [0.5, 0.5]]) == pytest.approx(0)


@few
@given(seed=seeds, bins=st.integers(1, 20))
def test_calibration_is_that_of_samples_put_into_bins_by_hand(seed, bins):
    logits, target = drawn(seed)
    rows = [softmax(row) for row in logits]
    boxes = {number: [] for number in range(bins)}
    for row, true in zip(rows, target, strict=True):
        sure = max(row)
        place = next(number for number in range(bins) if sure <= (number + 1) / bins or number == bins - 1)
        boxes[place].append((sure, row.index(sure) == true))
    gaps = [abs(sum(sure for sure, _ in box) - sum(right for _, right in box)) for box in boxes.values()]
    assert ece(rows, target, bins) == pytest.approx(sum(gaps) / len(rows))
    assert 0 <= ece(rows, target, bins) <= 1
    for found, box in zip(reliability(rows, target, bins), boxes.values(), strict=True):
        assert found.samples == len(box)
        if box:
            assert found.confidence == pytest.approx(np.mean([sure for sure, _ in box]))
            assert found.accuracy == pytest.approx(np.mean([right for _, right in box]))
        else:
            assert (found.confidence, found.accuracy) == (None, None)


def test_a_probability_between_two_bins_is_of_the_lower_one():
    assert [each.samples for each in reliability([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], [0, 0, 0], bins=4)] == [
        0,
        1,
        1,
        1,
    ]


def test_calibration_at_the_ends():
    certain = [[1.0, 0.0]] * 4
    assert ece(certain, [0, 0, 0, 0]) == 0
    assert ece(certain, [1, 1, 1, 1]) == 1
    assert ece([[0.75, 0.25]] * 4, [0, 0, 0, 1]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cross_entropy([[0.0, math.nan]], [0]),
            "outputs: 1 of 1 samples hold NaN or infinity, first",
        ),
        (lambda: cross_entropy([[0.0, 1.0]], [0, 1]), "target: has 2 samples, what belongs to them has 1"),
        (lambda: nll([[0.0, 1.0]], [0]), "no log-probabilities: the exponentials of sample 0 do not sum to 1"),
        (lambda: nll([[math.nan, 0.0]], [0]), "no log-probabilities"),
        (lambda: nll(np.log([[0.5, 0.5]]), [0, 1]), "target: has 2 samples, what belongs to them has 1"),
        (lambda: nll(np.log([[0.5, 0.5]]), [2]), "target: classes go from 0 to 1; sample 0 has 2"),
        (lambda: nll(np.zeros((0, 2)), []), "with one sample or more; got shape"),
        (lambda: kl(np.log([[0.5, 0.5]]), [[0.5, 0.6]]), "the target is no probabilities"),
        (lambda: kl(np.log([[0.5, 0.5]]), [[-0.5, 1.5]]), "the target is no probabilities"),
        (lambda: kl(np.log([[0.5, 0.5]]), [[1.0]]), r"log-probabilities are \[1, 2\], probabilities of the target"),
        (lambda: ece([[2.0, 1.0]], [0]), "calibration is of probabilities"),
        (lambda: ece([[-0.5, 1.5]], [0]), "calibration is of probabilities"),
        (lambda: ece([[0.5, 0.5]], [0], bins=0), "at least one bin; got bins=0"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(DataError, match=message):
        call()
