import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.distillation import AdversarialDistillation
from adaptkit.distillation.discriminator import Contest, Discriminator, passing_for_real, telling_apart
from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import context, net, toy, trained_teacher


def sigmoid(score) -> float:
    return 1 / (1 + np.exp(-score))


@given(real=st.lists(st.floats(-8, 8), min_size=1), fake=st.lists(st.floats(-8, 8), min_size=1))
def test_the_two_losses_are_the_papers(real, fake):
    apart = -np.mean([np.log(sigmoid(r)) for r in real]) - np.mean([np.log(1 - sigmoid(f)) for f in fake])
    passing = -np.mean([np.log(sigmoid(f)) for f in fake])
    real, fake = torch.tensor(real, dtype=torch.double), torch.tensor(fake, dtype=torch.double)
    assert float(telling_apart(real, fake)) == pytest.approx(apart)
    assert float(passing_for_real(fake)) == pytest.approx(passing)


def test_the_limits():
    sure = torch.tensor([200.0])
    assert float(telling_apart(sure, -sure)) == float(passing_for_real(sure)) == 0
    found_out = (-sure).requires_grad_()
    passing_for_real(found_out).backward()
    assert float(found_out.grad) == -1  # found out for certain, and a full gradient all the same


def contest() -> Contest:
    torch.manual_seed(0)
    return Contest(net(2), Discriminator(3, 16))


def test_neither_loss_reaches_the_other_side():
    pair, (x, y) = contest(), toy(20)
    teachers = trained_teacher()(x).detach()
    pair.judge_loss(pair(x), teachers, y).backward()
    assert all(p.grad is None for p in pair.student.parameters())
    assert all(p.grad is not None for p in pair.discriminator.parameters())
    pair.zero_grad(set_to_none=True)
    pair.student_loss(pair(x), y).backward()
    assert all(p.grad is not None for p in pair.student.parameters())
    assert all(p.grad is None for p in pair.discriminator.parameters())


def test_the_discriminator_learns_to_tell_and_the_class():
    pair, (x, y) = contest(), toy(300)
    teachers, students = trained_teacher()(x).detach(), net(5)(x).detach()
    optimizer = torch.optim.Adam(pair.discriminator.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        pair.judge_loss(students, teachers, y).backward()
        optimizer.step()
    (real, classes), (fake, _) = pair.discriminator(teachers), pair.discriminator(students)
    assert float((real > 0).float().mean() + (fake < 0).float().mean()) / 2 > 0.9
    assert float((classes.argmax(1) == y).float().mean()) > 0.9


def test_a_student_learns_and_nothing_stays_attached():
    teacher, student = trained_teacher(), net(2)
    before, names = state_sha256(teacher), set(student.state_dict())
    result = AdversarialDistillation(epochs=15, alpha=0.5).apply(student, context(teacher=teacher))
    assert result is student
    assert set(student.state_dict()) == names
    assert state_sha256(teacher) == before
    assert not student.training
    assert accuracy(student, toy(300, 9)) > 0.85


def test_a_finished_step_is_taken_up_and_the_same_seed_gives_the_same_bits(tmp_path):
    teacher = trained_teacher()
    hashes = [
        state_sha256(AdversarialDistillation(epochs=1).apply(net(2), context(teacher=teacher, seed=seed, workspace=w)))
        for seed, w in ((0, None), (0, tmp_path), (0, tmp_path), (1, None))
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


def test_other_classes_are_refused():
    with pytest.raises(ModelError, match=r"output has shape \(100, 3\), the teacher's \(100, 4\)"):
        AdversarialDistillation().apply(net(2), context(teacher=net(1, 4)))


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"width": 0}, {"alpha": 2}, {"temperature": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdversarialDistillation(**wrong)
