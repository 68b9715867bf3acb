"""Thresholds that keep a bound on the drop in accuracy."""

import numpy as np
import pytest

from adaptkit.conditional.thresholds import NEVER, Answers, choose, evaluate
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
