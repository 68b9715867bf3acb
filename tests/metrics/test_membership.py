"""LiRA on scores that are known, and its rates by exact intervals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest, norm
from torch import nn

from adaptkit.errors import AdaptkitError
from adaptkit.metrics.membership import (
    _draws,
    _ranks,
    lira_attack,
    lira_offline,
    membership_confidence,
    rates_at,
    shadow_confidences,
    tpr_at_fpr,
)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=6), st.data())
def test_confidence_is_the_logit_of_the_probability(row, data):
    label = data.draw(st.integers(0, len(row) - 1))
    p = math.exp(row[label]) / sum(map(math.exp, row))
    found = membership_confidence(np.array([row]), np.array([label])).item()
    assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_confidence_does_not_round_where_the_model_is_sure():
    logits = torch.tensor([[800.0, 0.0, 0.0], [900.0, 0.0, 0.0]])
    wanted = [800 - math.log(2), 900 - math.log(2)]
    assert membership_confidence(logits, torch.tensor([0, 0])).tolist() == pytest.approx(wanted)


def test_lira_is_what_a_hand_computes():
    confidences = np.array([5.0, 2.0, 0.0])
    shadows = np.array([[1.0, 2.0, 9.9], [3.0, np.nan, 0.0], [9.9, 4.0, 1.0]])
    out = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    # Means 2, 3, 0.5; squares about them 2, 2, 0.5, on 3 degrees of freedom.
    deviation = math.sqrt(4.5 / 3)
    wanted = [3 / deviation, -1 / deviation, -0.5 / deviation]
    assert lira_offline(confidences, shadows, out).tolist() == pytest.approx(wanted)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 100), shift=st.floats(-50, 50))
def test_lira_does_not_see_scales_of_confidence(seed, scale, shift):
    rng = np.random.default_rng(seed)
    phi, shadows, out = rng.normal(size=9), rng.normal(size=(6, 9)), (np.arange(6)[:, None] + np.arange(9)) % 3 > 0
    found = lira_offline(scale * phi + shift, scale * shadows + shift, out)
    assert found.tolist() == pytest.approx(lira_offline(phi, shadows, out).tolist(), abs=1e-6)


def test_the_rate_is_counted_where_it_should_be():
    non_members = np.arange(1000.0)
    members = np.array([988.5, 989.0, 989.5, 990.5, 2000.0])
    found = tpr_at_fpr(members, non_members, 0.01)  # ten non-members, 990 to 999, are above 989
    assert found.value == 3 / 5
    assert tpr_at_fpr(np.full(50, 5.0), np.full(1000, 5.0), 0.01).value == 0  # ties are no finds
    assert tpr_at_fpr(np.full(50, 6.0), np.full(1000, 5.0), 0.01).value == 1


@pytest.mark.parametrize(("samples", "rate", "side"), [(1000, 0.01, 0.9875), (10_000, 0.001, 0.975), (50, 0.4, 0.9)])
def test_ranks_are_the_order_statistics_around_the_rate(samples, rate, side):
    strict = max((j for j in range(1, samples + 1) if binom.cdf(j - 1, samples, rate) <= 1 - side), default=0)
    loose = min((j for j in range(1, samples + 1) if binom.sf(j - 1, samples, rate) <= 1 - side), default=0)
    assert _ranks(samples, rate, side) == (strict, loose)


def test_the_interval_holds_at_least_as_often_as_it_says_at_the_true_rate():
    rate, shift, rng = 0.01, 1.5, np.random.default_rng(0)
    truth = norm.sf(norm.isf(rate) - shift)
    found = [tpr_at_fpr(rng.normal(size=300) + shift, rng.normal(size=1000), rate, 0.9) for _ in range(150)]
    holds = np.mean([each.low <= truth <= each.high for each in found])
    assert holds >= 0.9
    # Counting members alone would not do: the threshold is of ten non-members.
    narrow = [binomtest(round(300 * each.value), 300).proportion_ci(0.9, "exact") for each in found]
    assert np.mean([each.low <= truth <= each.high for each in narrow]) < 0.85


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_half_of_the_error_is_for_the_threshold_and_half_for_the_members(confidence):
    rng, rate = np.random.default_rng(3), 0.05
    inside, outside = np.round(rng.normal(size=300) + 1.5, 1), np.sort(np.round(rng.normal(size=1000), 1))[::-1]
    found = tpr_at_fpr(inside, outside, rate, confidence)
    tail = (1 - confidence) / 4
    strict = max(j for j in range(1, 1001) if binom.cdf(j - 1, 1000, rate) <= tail)
    loose = min(j for j in range(1, 1001) if binom.sf(j - 1, 1000, rate) <= tail)
    surely, perhaps = (inside > outside[strict - 1]).sum(), (inside >= outside[loose - 1]).sum()
    assert found.low == pytest.approx(beta.ppf(tail, surely, 300 - surely + 1), abs=1e-8)
    assert found.high == pytest.approx(beta.ppf(1 - tail, perhaps + 1, 300 - perhaps), abs=1e-8)
    assert (inside == outside[strict - 1]).any()
    assert (inside == outside[loose - 1]).any()  # ties, so that strictly above and at least differ


def test_a_threshold_that_nothing_bounds_bounds_no_rate():
    # All twelve others may be below the threshold of a rate of 0.9, with chance 0.9^12; then any member is above it.
    assert tpr_at_fpr(np.full(50, -9.0), np.arange(12.0), 0.9).high == 1
    # None of a thousand may be above that of 0.01, with chance 0.99^1000 = 4e-5, which is more than 1e-4 / 4.
    found = tpr_at_fpr(np.full(50, 2000.0), np.arange(1000.0), 0.01, 0.9999)
    assert (found.value, found.low) == (1, 0)


@given(seed=st.integers(0, 1000), fpr=st.floats(0.1, 0.9))
def test_the_order_is_all_that_counts(seed, fpr):
    inside, outside = np.random.default_rng(seed).normal(size=(2, 120))
    found = tpr_at_fpr(inside, outside, fpr)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert tpr_at_fpr(np.exp(inside), np.exp(outside), fpr) == found


def test_rates_at_a_threshold_of_the_shadows():
    found = rates_at(0.5, np.array([1.0, 1, 0, 0.5]), np.array([0.0, 1]))
    for estimate, seen, samples in ((found.true_positive, 2, 4), (found.false_positive, 1, 2)):
        wanted = binomtest(seen, samples).proportion_ci(0.95, "exact")
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, wanted.low, wanted.high), abs=1e-9)


def test_draws_are_of_one_size_and_leave_all_out_about_equally():
    drawn = _draws(30, 12, 7, seed=0)
    assert drawn.sum(1).tolist() == [12] * 7
    counts = drawn.sum(0)
    assert counts.max() - counts.min() <= 1
    assert (_draws(30, 12, 7, seed=1) != drawn).any()


def test_a_model_that_knows_its_samples_by_heart_is_found_out():
    """Each model answers 9 for what it was trained on and noise for the rest: one shadow in, none out."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.arange(400)[:, None]).float()
    y = torch.zeros(400, dtype=torch.long)

    class ByHeart(nn.Module):
        def __init__(self, known):
            super().__init__()
            self.known = set(known[:, 0].tolist())

        def forward(self, x):
            sure = torch.tensor([9.0 if value in self.known else 0.0 for value in x[:, 0].tolist()])
            noise = torch.from_numpy(rng.normal(size=len(x))).float()
            return torch.stack([sure + noise, torch.zeros(len(x))], dim=1)

    seeds = []

    def train(x, y, seed):
        seeds.append(seed)
        assert len(x) == len(y) == 100
        return ByHeart(x)

    inside, outside = lira_attack(ByHeart(x[:100]), train, (x[:100], y[:100]), (x[100:], y[100:]), shadows=8)
    assert len(set(seeds)) == 8
    assert inside.min() > 3
    assert outside.abs().max() < 5
    assert inside.mean() > outside.mean() + 6


def test_the_seed_draws_the_samples_of_the_shadows():
    x, y = torch.arange(40.0)[:, None].repeat(1, 2), torch.zeros(40, dtype=torch.long)
    drawn = []

    def train(x, y, seed):
        drawn.append(x[:, 0].tolist())
        return nn.Linear(2, 2)

    for seed in (0, 0, 1):
        shadow_confidences(train, (x[:20], y[:20]), (x[20:], y[20:]), shadows=2, seed=seed)
    assert drawn[:2] == drawn[2:4]
    assert all(one != other for one, other in zip(drawn[:2], drawn[4:], strict=True))


OUT = np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tpr_at_fpr(np.ones(5), np.ones(9999), 0.001),
            "9999 samples are too few .* 0.001; give at least 10000",
        ),
        (lambda: tpr_at_fpr(np.ones(5), np.ones(999), 0.01), "give at least 1000, or ask for a rate of 0.01 or more"),
        (lambda: tpr_at_fpr(np.ones(0), np.ones(1000), 0.01), "members: 0 samples are too few"),
        (lambda: tpr_at_fpr(np.ones(5), np.full(1000, np.nan), 0.01), "non_members: 1000 of 1000 samples hold NaN"),
        (lambda: tpr_at_fpr(np.ones(5), np.ones(5), 0), "fpr is between 0 and 1, such as 0.001; got 0"),
        (lambda: lira_offline(np.ones(3), np.ones((2, 3)), ~OUT), "3 samples have no shadow model.*train more"),
        (lambda: lira_offline(np.ones(3), np.eye(3)[:2], [[1, 0, 1], [1, 0, 1]]), "1 samples have no shadow model"),
        (lambda: lira_offline(np.ones(3), np.ones((2, 3)), [[1, 0, 1], [0, 1, 0]]), "0 have two or more"),
        (lambda: lira_offline(np.ones(3), np.ones((2, 3)), OUT), "give the same confidences; train them on different"),
        (lambda: lira_offline(np.ones(2), np.ones((2, 3)), OUT), r"got \(2,\), \(2, 3\) and \(2, 3\)"),
        (lambda: lira_offline(np.ones(3), np.full((2, 3), np.nan), OUT), "shadows: 2 of 2 samples hold NaN"),
        (lambda: membership_confidence(np.ones((2, 3)), np.array([0, 3])), "classes go from 0 to 2; sample 1 has 3"),
        (lambda: membership_confidence(np.ones((2, 1)), np.array([0, 0])), "at least 2 classes"),
        (lambda: rates_at(0, np.ones(0), np.ones(3)), "members: 0 samples"),
        (lambda: lira_attack(nn.Identity(), None, (OUT, OUT), (OUT, OUT), shadows=1), "at least 2 shadow models"),
        (lambda: lira_attack(nn.Identity(), None, (OUT, OUT[0]), (OUT, OUT)), "members: x: has 2 samples"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AdaptkitError, match=message):
        call()
