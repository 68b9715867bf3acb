from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import TargetError
from adaptkit.pruning.select import TOLERANCE, candidate, choose


def _chain(sizes):
    """The cost of layers in a row: each takes what the one before it makes."""

    def cost(kept):
        return float(3 * kept[0] + sum(a * b for a, b in pairwise(kept)) + 10 * kept[-1])

    return cost


@settings(deadline=None)
@given(
    sizes=st.lists(st.sampled_from([16, 24, 32, 64]), min_size=3, max_size=6),
    target=st.floats(0.3, 0.9),
    round_to=st.sampled_from([1, 8]),
    per_layer=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_target_is_met_within_two_percent_above_the_floor(sizes, target, round_to, per_layer, seed):
    generator = np.random.default_rng(seed)
    ones = [
        candidate(generator.random(size).tolist(), 1, round_to, 8, number if per_layer else 0)
        for number, size in enumerate(sizes)
    ]
    cost = _chain(sizes)
    try:
        choice = choose(ones, cost, target)
    except TargetError:
        assert cost(np.full(len(sizes), 8.0)) / cost(np.array(sizes, float)) > target
        return
    kept = np.array([len(one.scores) - len(removed) for one, removed in zip(ones, choice.removed, strict=True)])
    assert (kept >= 8).all()
    assert choice.ratio == pytest.approx(cost(kept.astype(float)) / cost(np.array(sizes, float)))
    step = max(sizes) / cost(np.array(sizes, float)) * 2 * max(sizes)
    assert abs(choice.ratio - target) <= max(TOLERANCE * target, step)
    for number, (one, removed) in enumerate(zip(ones, choice.removed, strict=True)):
        assert number in choice.relaxed or (one.size - len(removed)) % min(round_to, one.size // 4) == 0
        left = np.setdiff1d(np.arange(one.size), removed)
        assert not removed or one.scores[list(removed)].max() <= one.scores[left].min()


def test_global_takes_the_least_important_and_per_layer_the_same_share():
    ones = [candidate([1.0] * 8, 1, 1, 1), candidate([5.0] * 8, 1, 1, 1)]

    def cost(kept):
        return float(kept.sum())

    assert [len(removed) for removed in choose(ones, cost, 0.5).removed] == [7, 1]
    ones = [candidate([1.0] * 8, 1, 1, 1, family=0), candidate([5.0] * 8, 1, 1, 1, family=1)]
    assert [len(removed) for removed in choose(ones, cost, 0.5).removed] == [4, 4]


def test_families_give_the_same_share_and_rank_within():
    heads = [candidate([1.0] * 4, 1, 1, 1, family=0), candidate([2.0] * 4, 1, 1, 1, family=0)]
    features = [candidate([900.0] * 16, 1, 1, 1, family=1), candidate([100.0] * 16, 1, 1, 1, family=1)]
    choice = choose([*heads, *features], lambda kept: float(kept.sum()), 0.5)
    assert [len(removed) for removed in choice.removed] == [3, 1, 1, 15]


def test_rounding_is_given_up_for_one_group_only():
    ones = [candidate(list(range(32)), 1, 8, 8), candidate(list(range(32)), 1, 8, 8)]
    choice = choose(ones, lambda kept: float(kept.sum()), 0.7)
    assert choice.ratio == pytest.approx(0.7, rel=TOLERANCE)
    assert len(choice.relaxed) == 1


def test_per_cost_looks_past_moves_that_save_nothing():
    def blocks_of_sixteen(kept):
        return float(np.ceil(kept / 16).sum())

    ones = [candidate([1.0] * 32, 1, 8, 8)]
    choice = choose(ones, blocks_of_sixteen, 0.5, per_cost=True)
    assert len(choice.removed[0]) == 16
    assert choice.relaxed == ()


@settings(deadline=None)
@given(
    slopes=st.lists(st.floats(0.1, 10), min_size=2, max_size=4),
    target=st.floats(0.3, 0.9),
    seed=st.integers(0, 99),
)
def test_rises_are_weighed_against_what_is_saved(slopes, target, seed):
    """Beside trying all: what the last moves may lose over the best, rises being convex, is one move of each group."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.5, 2, len(slopes))
    ones = [
        replace(candidate(generator.random(16).tolist(), 1, 4, 4), rises=slope * ((16 - np.arange(17)) / 16) ** 2)
        for slope in slopes
    ]

    def cost(kept):
        return float(weights @ kept)

    choice = choose(ones, cost, target, per_cost=True, tolerance=0.15)
    if choice.relaxed:
        return
    kept = [16 - len(removed) for removed in choice.removed]
    lost = sum(one.rises[left] for one, left in zip(ones, kept, strict=True))
    levels = product(*(one.levels() for one in ones))
    whole = cost(np.full(len(slopes), 16.0))
    allowed = [left for left in levels if cost(np.array(left)) <= whole * max(choice.ratio, target) + 1e-9]
    best = min(sum(one.rises[n] for one, n in zip(ones, left, strict=True)) for left in allowed)
    steps = sum(one.rises[4] - one.rises[8] for one in ones)
    assert best - 1e-9 <= lost <= best + steps
    assert 0.85 * target <= choice.ratio <= 1.15 * target + 1e-9


def test_a_move_that_would_go_too_far_leaves_the_smaller_ones_of_its_group_open():
    one = replace(candidate([1.0] * 32, 1, 8, 8), rises=np.where(np.arange(33) < 32, 1.0, 0.0))
    choice = choose([one], lambda kept: float(kept.sum()), 0.5, per_cost=True)
    assert (len(choice.removed[0]), choice.relaxed) == (16, ())


def test_narrow_groups_keep_multiples_of_a_quarter_of_theirs():
    assert candidate([1.0] * 16, 1, 8, 4).levels() == [16, 12, 8, 4]
    assert candidate([1.0] * 64, 1, 16, 4).levels() == [64, 48, 32, 16]
    assert candidate([1.0] * 3, 1, 8, 1).levels() == [3, 2, 1]


def test_an_unreachable_target_names_the_smallest_ratio():
    ones = [candidate([1.0] * 32, 1, 8, 8)]
    with pytest.raises(
        TargetError, match=r"a ratio of 0.1 was asked for; the smallest these settings can reach is 0.250"
    ):
        choose(ones, lambda kept: float(kept.sum()), 0.1)


def test_wide_units_count_by_their_channels():
    heads = candidate([1.0] * 12, width=6, round_to=8, min_channels=8)
    assert (heads.step, heads.floor) == (4, 2)
    assert heads.levels() == [12, 8, 4]
