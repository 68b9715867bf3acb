"""Thresholds that keep a bound on the drop in accuracy."""

import numpy as np
import pytest

from adaptkit.conditional.placement import fastest_points
from adaptkit.conditional.thresholds import NEVER, Answers, _cheapest, _ever_earlier, _steps, choose, evaluate, fastest
from adaptkit.errors import TargetError


def made_up(seed, samples, skill=(0.80, 0.88, 0.92)):
    """Exits that get better; the surer they are, the more often they are right."""
    random = np.random.default_rng(seed)
    hard = random.random(samples)
    right = np.stack([hard < level for level in skill], 1)
    right ^= random.random(right.shape) < 0.01
    sureness = np.stack([1 - hard + random.normal(0, 0.15, samples) for _ in skill[:-1]], 1)
    return Answers(sureness, right, hard < skill[-1], np.array([1.0, 2.0, 4.0]))


def test_evaluate_against_a_loop():
    answers, thresholds = made_up(0, 200), (0.6, 0.4)
    places = []
    for row in answers.sureness:
        sure = [k for k, threshold in enumerate(thresholds) if row[k] >= threshold]
        places.append(sure[0] if sure else 2)
    outcome = evaluate(answers, thresholds)
    assert outcome.shares == pytest.approx([places.count(k) / 200 for k in range(3)])
    assert outcome.seconds == pytest.approx(np.mean([(1, 2, 4)[k] for k in places]))
    got = [answers.right[i, k] for i, k in enumerate(places)]
    assert outcome.lost == sum(o and not g for o, g in zip(answers.original, got, strict=True))
    assert outcome.gained == sum(g and not o for o, g in zip(answers.original, got, strict=True))


def test_chosen_thresholds_are_fast_and_keep_the_limit_in_nineteen_of_twenty():
    truth = made_up(999, 200_000)
    broken, speed = 0, []
    for seed in range(60):
        chosen = choose(made_up(seed, 2000), max_drop=0.03)
        real = evaluate(truth, chosen.thresholds)
        broken += (real.lost - real.gained) / real.samples > 0.03
        speed.append(4 / chosen.seconds)
        assert chosen.bound <= 0.03
    assert broken <= 3
    assert np.median(speed) > 1.4


def test_more_may_be_lost_more_is_saved():
    seconds = [choose(made_up(1, 4000), max_drop=drop).seconds for drop in (0.02, 0.04, 0.08)]
    assert seconds[0] > seconds[1] > seconds[2]


def test_it_refuses_and_says_how_far_it_got():
    with pytest.raises(
        TargetError, match=r"at most 0\.01 points with 95 % confidence: on 350 validation samples even w"
    ):
        choose(made_up(2, 500), max_drop=0.0001)
    answers = made_up(3, 2000)
    all_alike = np.full_like(answers.sureness, 0.5)
    nothing_works = Answers(all_alike, answers.right & [False, False, True], answers.original, answers.seconds)
    with pytest.raises(TargetError, match="no exit is sure enough"):
        choose(nothing_works, max_drop=0.02)


def test_an_exit_that_is_never_taken():
    outcome = evaluate(made_up(4, 100), (NEVER, NEVER))
    assert outcome.shares == (0, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_one_exit_is_cut_where_a_loop_finds_the_least_cost(seed):
    both = made_up(seed, 60)
    answers = Answers(both.sureness[:, :1], both.right[:, [0, 2]], both.original, both.seconds[[0, 2]])
    tried = [NEVER, *answers.sureness[:, 0].tolist()]
    for price in (0.5, 5.0, 50.0):

        def cost(threshold, price=price):
            leaves = answers.sureness[:, 0] >= threshold
            lost = leaves * (answers.right[:, 1].astype(float) - answers.right[:, 0])
            errors = lost.sum() + 1.645 * np.abs(lost).sum() ** 0.5
            return price * errors + np.where(leaves, *answers.seconds).sum()

        assert cost(_cheapest(answers, price)[0]) == pytest.approx(min(map(cost, tried)))


def test_few_that_are_better_by_luck_are_worth_nothing():
    """Of two ways out the later one is as good and saves much; the earlier is much worse, save for a lucky few."""
    random = np.random.default_rng(1)
    last = random.random(1000) < 0.9
    lucky = np.arange(1000) < 2
    first = np.where(lucky, True, random.random(1000) < 0.6)
    sureness = np.stack([np.where(lucky, 2.0, random.random(1000)), random.random(1000)], 1)
    last[:2] = False
    answers = Answers(sureness, np.stack([first, last, last], 1), last, np.array([1.0, 2.0, 4.0]))
    leaves = sureness >= np.array(_cheapest(answers, 50.0))
    assert not leaves[:, 0].any()
    assert leaves[:, 1].all()


def test_who_is_never_sure_never_leaves():
    answers = made_up(5, 50)
    never = Answers(np.full_like(answers.sureness, -np.inf), answers.right, answers.original, answers.seconds)
    assert _cheapest(never, 1.0) == (NEVER, NEVER)


def test_a_late_exit_is_used_where_an_early_one_would_spend_all_that_may_be_lost():
    """The early exit knows little; what it could save is better spent behind it."""
    random = np.random.default_rng(0)
    hard = random.random(6000)
    right = np.stack([random.random(6000) < 0.6, hard < 0.9, hard < 0.92], 1)
    sureness = np.stack([random.random(6000), 1 - hard], 1)
    outcome = choose(Answers(sureness, right, hard < 0.92, np.array([1.0, 2.0, 4.0])), 0.02)
    assert outcome.shares[1] > 0.8
    assert outcome.shares[0] < 0.1


def test_points_that_cost_more_than_they_save_are_left_out():
    answers = made_up(6, 4000)
    seen = []

    def of(kept, seconds):
        seen.append(kept)
        columns = list(kept)
        return Answers(answers.sureness[:, columns], answers.right[:, [*columns, 2]], answers.original, seconds)

    segments = np.array([1.0, 1.0, 2.0])
    assert fastest_points(of, segments, 4.0, np.array([3.0, 0.1]), 0.06, 0) == (1,)
    assert fastest_points(of, segments, 4.0, np.array([0.0, 3.0]), 0.06, 0) == (0,)
    assert set(seen) == {(0,), (1,), (0, 1)}


def test_what_the_network_loses_anyway_does_not_hide_what_exits_save():
    answers = made_up(7, 2000)
    worse = Answers(answers.sureness, answers.right, np.ones(2000, bool), answers.seconds)
    assert fastest(worse, 0.01) < 4.0


def test_where_scores_tell_nothing_a_part_leaves():
    """A network that is a little worse may answer for some, whichever they are."""
    random = np.random.default_rng(0)
    right = random.random((8000, 2)) < (0.88, 0.92)
    answers = Answers(random.random((8000, 1)), right, right[:, 1], np.array([1.0, 4.0]))
    tried = [evaluate(answers, thresholds).shares[0] for thresholds in _ever_earlier(answers)]
    assert (tried[0], tried[-1]) == (0, 1)
    assert np.abs(np.diff(tried)).max() < 0.04
    assert 0.1 < choose(answers, 0.02).shares[0] < 0.6


def test_steps_between_thresholds_are_even_and_end_where_they_should():
    sureness = made_up(8, 1000).sureness
    after = (0.3, 0.6)
    steps = list(_steps(sureness, (NEVER, NEVER), after))
    shares = [(sureness >= np.array(each)).mean(0) for each in steps]
    assert steps[-1] == after
    assert len(steps) > 10
    assert np.abs(np.diff([np.zeros(2), *shares], axis=0)).max() < 0.04
