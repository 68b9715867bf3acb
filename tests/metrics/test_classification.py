"""Against counting, sample by sample and pair by pair."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import DataError
from adaptkit.metrics import accuracy, f1, mcc, precision, recall, roc_auc, top_k

pairs_of_classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25)
few = settings(max_examples=40)


def counted(pairs, of):
    """True positives, false positives and false negatives of a class."""
    hits = sum(p == t == of for p, t in pairs)
    return hits, sum(p == of != t for p, t in pairs), sum(t == of != p for p, t in pairs)


def ratio(top, bottom):
    return top / bottom if bottom else 0.0


FORMULAS = {
    precision: lambda tp, fp, fn: ratio(tp, tp + fp),
    recall: lambda tp, fp, fn: ratio(tp, tp + fn),
    f1: lambda tp, fp, fn: ratio(2 * tp, 2 * tp + fp + fn),
}


@few
@given(pairs=pairs_of_classes)
def test_shares_are_those_counted_class_by_class(pairs):
    predicted, target = zip(*pairs, strict=True)
    assert accuracy(predicted, target) == sum(p == t for p, t in pairs) / len(pairs)
    for metric, formula in FORMULAS.items():
        each = {of: formula(*counted(pairs, of)) for of in set(target)}
        assert metric(predicted, target) == pytest.approx(sum(each.values()) / len(each))
        for of, wanted in each.items():
            assert metric(predicted, target, positive=of) == pytest.approx(wanted)


@few
@given(pairs=pairs_of_classes)
def test_mcc_is_the_correlation_of_indicators(pairs):
    predicted, target = (np.eye(4)[list(side)] for side in zip(*pairs, strict=True))

    def covariance(a, b):
        return sum(np.mean((a[:, k] - a[:, k].mean()) * (b[:, k] - b[:, k].mean())) for k in range(4))

    spread = covariance(predicted, predicted) * covariance(target, target)
    wanted = covariance(predicted, target) / math.sqrt(spread) if spread > 1e-12 else 0.0
    assert mcc(*zip(*pairs, strict=True)) == pytest.approx(wanted, abs=1e-9)


@few
@given(pairs=pairs_of_classes, order=st.permutations(range(4)), seed=st.integers(0, 99))
def test_names_of_classes_and_the_order_of_samples_do_not_matter(pairs, order, seed):
    shuffled = [pairs[place] for place in np.random.default_rng(seed).permutation(len(pairs))]
    renamed = [(order[p], order[t]) for p, t in shuffled]
    for metric in (accuracy, precision, recall, f1, mcc):
        value = metric(*zip(*pairs, strict=True))
        assert metric(*zip(*renamed, strict=True)) == pytest.approx(value, abs=1e-12)
        assert -1 <= value <= 1
        assert metric is mcc or value >= 0


def test_mcc_at_the_ends():
    assert mcc([0, 1, 2], [0, 1, 2]) == pytest.approx(1)
    assert mcc([1, 0, 1, 0], [0, 1, 0, 1]) == pytest.approx(-1)
    assert mcc([0, 0, 0], [0, 1, 2]) == mcc([0, 1], [1, 1]) == mcc([0], [0]) == 0


scored = st.integers(2, 5).flatmap(
    lambda classes: st.lists(
        st.tuples(st.lists(st.integers(-2, 2), min_size=classes, max_size=classes), st.integers(0, classes - 1)),
        min_size=1,
        max_size=15,
    )
)


@few
@given(samples=scored)
def test_top_k_is_that_of_sorted_classes(samples):
    scores, target = zip(*samples, strict=True)
    before = 0.0
    for k in range(1, len(scores[0])):
        ranked = [sorted(range(len(row)), key=lambda c, row=row: (-row[c], c))[:k] for row in scores]
        wanted = sum(true in best for true, best in zip(target, ranked, strict=True)) / len(target)
        assert top_k(scores, target, k) == pytest.approx(wanted)
        assert top_k(np.array(scores) * 3.0 + 7, target, k) == pytest.approx(wanted)
        assert wanted >= before
        before = wanted
    assert top_k(scores, target, 1) == accuracy(np.argmax(scores, axis=1), target)


def test_a_model_that_answers_the_same_to_all_is_not_right_by_ties():
    assert top_k(np.zeros((100, 10)), np.arange(100) % 10, 5) == 0.5
    assert top_k(np.zeros((50, 10)), np.full(50, 9), 5) == 0


@few
@given(samples=scored)
def test_auc_is_the_share_of_pairs_in_order(samples):
    scores, target = (np.array(side) for side in zip(*samples, strict=True))
    classes = sorted(set(target.tolist()))
    if len(classes) < 2:
        with pytest.raises(DataError, match=f"all {len(target)} samples are of class {target[0]}"):
            roc_auc(scores, target)
        return
    areas = []
    for of in classes:
        own, others = scores[target == of, of], scores[target != of, of]
        areas.append(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(own, others)]))
    assert roc_auc(scores, target) == pytest.approx(np.mean(areas))
    assert roc_auc(np.exp(scores), target) == pytest.approx(np.mean(areas))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([], []), "outputs: 0 samples are too few, give at least 1"),
        (lambda: accuracy([0, 1], [0]), "target: has 1 samples, what belongs to them has 2"),
        (lambda: accuracy([0.0, 1.0], [0, 1]), "outputs: give one class number a sample; got float64"),
        (lambda: accuracy([[0, 1]], [0, 1]), r"outputs: give one class number a sample; got int64 of shape \(1, 2\)"),
        (lambda: f1([0, 1], [0, -1]), "target: classes go from 0; sample 1 has -1"),
        (lambda: precision([0, 1], [0, 0], positive=1), "no sample is of class 1, which is to be the positive one"),
        (lambda: recall([0, 1], [0, 0], positive=7), "no sample is of class 7"),
        (lambda: top_k([[0.1, 0.2, 0.3]], [0], 3), "top-3 of 3 classes says nothing: k is from 1 to 2"),
        (lambda: top_k([[0.1, 0.2, 0.3]], [0], 0), "top-0 of 3 classes says nothing"),
        (
            lambda: top_k([[0.1, 0.2], [0.1, math.nan]], [0, 1], 1),
            "outputs: 1 of 2 samples hold NaN or infinity, first at sample 1",
        ),
        (lambda: top_k([[0.1, 0.2]], [2], 1), "target: classes go from 0 to 1; sample 0 has 2"),
        (
            lambda: top_k([0.1, 0.2], [0, 1], 1),
            r"outputs: give samples × classes with .* got shape \(2,\)",
        ),
        (lambda: top_k([[0.1], [0.2]], [0, 0], 1), r"outputs: give samples × classes .* got shape \(2, 1\)"),
        (
            lambda: roc_auc([[0.1, math.inf], [1, 2]], [0, 1]),
            "outputs: 1 of 2 samples hold NaN or infinity",
        ),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(DataError, match=message):
        call()
