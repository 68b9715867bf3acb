from itertools import pairwise

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
        assert number in choice.relaxed or (one.size - len(removed)) % round_to == 0
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
