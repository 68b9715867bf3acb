import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adaptkit.distillation import CrossModalDistillation, LogitDistillation
from adaptkit.distillation.cross_modal import View
from adaptkit.distillation.views import view
from adaptkit.errors import DataError, ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.fit import fit
from tests.distillation.toys import image_net, images, trained_image_teacher


@given(
    channels=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    shape=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 9),
)
def test_a_view_of_channels_is_those_channels(channels, shape, seed):
    x = np.random.default_rng(seed).normal(size=(2, 4, *shape))
    expected = np.stack([x[:, channel] for channel in channels], axis=1)
    np.testing.assert_array_equal(view(torch.from_numpy(x), channels, None).numpy(), expected)


@given(factor=st.integers(1, 4), size=st.integers(1, 4))
def test_a_smaller_view_keeps_the_mean_and_a_flat_image_flat(factor, size):
    flat = torch.full((1, 2, factor * size, factor * size), 0.3)
    assert torch.allclose(view(flat, None, size), torch.full((1, 2, size, size), 0.3))
    assert view(flat, [1], size).shape == (1, 1, size, size)
    assert view(flat, None, None) is flat


def both_sides(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Channel 0 shows the class clearly, channel 1 the same under much noise."""
    x, y = images(count, seed)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([x, x + 0.8 * noise], dim=1), y


def context(**changes) -> Context:
    return Context(example_inputs=(torch.zeros(1, 2, 8, 8),), train=both_sides(128, 0)).replace(**changes)


ACROSS = {"teacher_view": {"channels": [0]}, "student_view": {"channels": [1]}}


def test_a_student_of_the_poor_channel_learns_from_a_teacher_of_the_good_one():
    """No label is looked at: the targets are wrong on purpose."""
    teacher = trained_image_teacher()
    before = state_sha256(teacher)
    x, y = both_sides(512, 0)
    student = CrossModalDistillation(epochs=20, alpha=1, **ACROSS).apply(
        image_net(4, seed=3), context(teacher=teacher, train=(x, torch.zeros_like(y)))
    )
    test_x, test_y = both_sides(400, 9)
    assert accuracy(student, (test_x[:, 1:], test_y)) > 0.5
    assert state_sha256(teacher) == before


def test_the_views_are_the_ones_that_are_fed():
    """The same as distilling on data cut by hand, and a size of the teacher's own."""
    teacher = trained_image_teacher()
    x, y = both_sides(128, 0)
    ours = CrossModalDistillation(teacher_view=View(channels=(1,)), student_view=View(channels=(1,), size=8)).apply(
        image_net(4, seed=3), context(teacher=teacher)
    )
    by_hand = LogitDistillation().apply(image_net(4, seed=3), context(teacher=teacher, train=(x[:, 1:], y)))
    torch.testing.assert_close(ours(x[:9, 1:]), by_hand(x[:9, 1:]))


def test_a_student_of_small_images_and_the_same_seed_gives_the_same_bits():
    teacher = image_net(8)
    fit(teacher, images(512, 1), epochs=5)
    technique = CrossModalDistillation(epochs=2, student_view=View(size=4))
    students = [
        technique.apply(image_net(4, seed=3), context(teacher=teacher, train=images(128), seed=seed))
        for seed in (0, 0, 1)
    ]
    hashes = [state_sha256(student) for student in students]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_cannot_be_seen_is_said():
    with pytest.raises(DataError, match="a view takes channel 2; the samples have 2, counted from 0"):
        CrossModalDistillation(teacher_view=View(channels=(2,))).apply(image_net(4), context(teacher=image_net(8)))
    numbers = nn.Linear(5, 3)
    flat = (torch.zeros(4, 5), torch.zeros(4, dtype=torch.long))
    with pytest.raises(DataError, match=r"a view scales images, N × C × H × W; the samples have shape \(4, 5\)"):
        CrossModalDistillation(teacher_view=View(size=2)).apply(numbers, context(teacher=nn.Linear(5, 3), train=flat))
    with pytest.raises(ModelError, match=r"distill\.cross_modal has no teacher"):
        CrossModalDistillation(**ACROSS).apply(image_net(4), context())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "teacher and student see the same: give student_view, teacher_view or both"),
        ({"student_view": {"size": 4}, "teacher_view": {"size": 4}}, "see the same"),
        ({"teacher_view": {"channels": []}}, "channels"),
        ({"teacher_view": {"channels": [-1]}}, "channels"),
        ({"teacher_view": {"size": 0}}, "size"),
        ({"teacher_view": {"colour": 1}}, "colour"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        CrossModalDistillation(**wrong)
