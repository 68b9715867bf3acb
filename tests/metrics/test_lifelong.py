"""Forgetting against tables done by hand, its intervals by how often they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import DataError
from adaptkit.metrics.estimate import ALIKE, unbounded
from adaptkit.metrics.lifelong import accuracy_matrix, backward_transfer, forgetting, forgetting_matrix

TABLE = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.1], [0.7, 0.5, 0.9]])


def answers(table, samples, rng):
    """Truth values whose shares are those of a table."""
    return [rng.random((len(table), samples)) < np.array(table)[:, [j]] for j in range(len(table))]


def test_the_figures_are_what_a_hand_computes():
    found = forgetting_matrix(TABLE)
    wanted = {(1, 0): 0.9 - 0.6, (2, 0): 0.9 - 0.7, (2, 1): 0.8 - 0.5}
    for i in range(3):
        for j in range(3):
            assert found[i, j].item() == pytest.approx(wanted.get((i, j), np.nan), nan_ok=True)
    assert backward_transfer(TABLE) == pytest.approx(((0.7 - 0.9) + (0.5 - 0.8)) / 2)


def test_what_came_before_a_task_was_learnt_does_not_count():
    table = np.array([[0.5, 0.99], [0.5, 0.7]])
    assert forgetting_matrix(np.pad(table, (0, 1), constant_values=0.1))[2, 1].item() == pytest.approx(0.6)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), tasks=st.integers(2, 4))
def test_ranges_and_what_belongs_together(seed, tasks):
    rng = np.random.default_rng(seed)
    table = rng.random((tasks, tasks))
    fallen = forgetting_matrix(table).numpy()
    below = np.tril_indices(tasks, -1)
    assert np.isnan(fallen[np.triu_indices(tasks)]).all()
    assert (np.abs(fallen[below]) <= 1).all()
    assert fallen[-1, :-1].mean() >= -backward_transfer(table) - 1e-9  # the best is no worse than the first


def test_all_figures_come_from_the_answers():
    right = answers(TABLE, 40, np.random.default_rng(0))
    right[1] = right[1][:, :25]  # tasks may differ in size
    table = accuracy_matrix(right)
    assert table[2, 1].item() == pytest.approx(right[1][2].mean())
    found = forgetting(right)
    assert found.accuracies == tuple(map(tuple, table.tolist()))
    assert found.backward_transfer.value == backward_transfer(table)
    fallen = forgetting_matrix(table)
    assert [[cell is None for cell in row] for row in found.forgetting] == fallen.isnan().tolist()
    assert found.forgetting[2][1].value == fallen[2, 1].item()
    assert found.mean_forgetting.value == pytest.approx(fallen[2, :2].mean().item())
    assert found == forgetting(right) != forgetting(right, seed=1)


def test_samples_are_drawn_with_all_their_answers():
    """Answers that never change give draws without a difference; drawn apart, both tasks would differ by chance."""
    same = np.tile(np.random.default_rng(0).random((1, 30)) < 0.5, (2, 1))
    found = forgetting([same, same])
    assert found.backward_transfer == unbounded(0.0, ALIKE)


def test_the_interval_of_backward_transfer_holds_as_often_as_it_says():
    table, rng = [[0.9, 0.2], [0.6, 0.8]], np.random.default_rng(0)
    found = [forgetting(answers(table, 60, rng), seed=seed).backward_transfer for seed in range(40)]
    assert sum(each.low <= -0.3 <= each.high for each in found) >= 34


GOOD = np.ones((2, 5), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy_matrix([GOOD]), "give the answers to at least 2 tasks; got 1"),
        (lambda: accuracy_matrix([GOOD, GOOD[:1]]), r"right\[1\]: give tasks × samples, 2 rows .*got \(1, 5\)"),
        (lambda: accuracy_matrix([GOOD, GOOD[:, :0]]), r"right\[1\]: give tasks × samples"),
        (lambda: accuracy_matrix([GOOD, 0.5 * GOOD]), r"right\[1\]: give truth values"),
        (lambda: accuracy_matrix([GOOD * np.nan, GOOD]), r"right\[0\]: 2 of 2 samples hold NaN"),
        (lambda: forgetting([GOOD, GOOD[:, :1]]), "a task has one sample"),
        (lambda: forgetting_matrix(np.ones((2, 3))), r"at least 2 × 2; got \(2, 3\)"),
        (lambda: backward_transfer(np.ones((1, 1))), "at least 2 × 2"),
        (lambda: backward_transfer(np.full((2, 2), np.nan)), "accuracies: 2 of 2 samples hold NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(DataError, match=message):
        call()
