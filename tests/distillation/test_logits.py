import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from adaptkit.distillation import LogitDistillation
from adaptkit.distillation.losses import hinton_loss
from adaptkit.errors import DataError, ModelError, RunFolderError
from adaptkit.metrics.task import accuracy
from adaptkit.specs import ModelSpec
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings
from tests.distillation.toys import context, net, toy, trained_teacher


def by_hand(student, teacher, target, temperature, alpha, smoothing) -> float:
    """The formula of the paper, a sample and a class at a time, in double precision."""
    total = 0.0
    for s, t, y in zip(student, teacher, target, strict=True):
        p = np.exp(t / temperature) / np.exp(t / temperature).sum()
        q = np.exp(s / temperature) / np.exp(s / temperature).sum()
        hard = np.exp(s) / np.exp(s).sum()
        wanted = smoothing / len(s) + (1 - smoothing) * (np.arange(len(s)) == y)
        total += alpha * temperature**2 * (p * np.log(p / q)).sum() - (1 - alpha) * (wanted * np.log(hard)).sum()
    return total / len(student)


@given(
    count=st.integers(1, 5),
    classes=st.integers(2, 6),
    temperature=st.floats(0.5, 20),
    alpha=st.floats(0, 1),
    smoothing=st.floats(0, 0.5),
    seed=st.integers(0, 9),
)
def test_the_loss_is_the_papers(count, classes, temperature, alpha, smoothing, seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, count, classes))
    target = rng.integers(0, classes, count)
    ours = hinton_loss(*map(torch.from_numpy, (student, teacher, target)), temperature, alpha, smoothing)
    assert float(ours) == pytest.approx(
        by_hand(student, teacher, target, temperature, alpha, smoothing), rel=1e-6, abs=1e-9
    )


def test_extremes_of_alpha():
    student, teacher, target = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(hinton_loss(student, teacher, target, 3.0, 0.0), F.cross_entropy(student, target))
    assert float(hinton_loss(teacher, teacher, target, 3.0, 1.0)) == pytest.approx(0, abs=1e-6)


def test_a_model_that_classifies_every_place_is_as_one_of_as_many_samples():
    student, teacher, target = torch.randn(3, 5, 4, 2), torch.randn(3, 5, 4, 2), torch.randint(5, (3, 4, 2))
    flat = (each.movedim(1, -1).reshape(-1, 5) for each in (student, teacher))
    places = hinton_loss(*flat, target.flatten(), 2.0, 0.7)
    torch.testing.assert_close(hinton_loss(student, teacher, target, 2.0, 0.7), places)


def test_a_student_learns_from_the_teacher_alone():
    """alpha = 1 never looks at the targets: wrong ones do not disturb, and the teacher's answers are met."""
    teacher = trained_teacher()
    before = state_sha256(teacher)
    x, _ = toy(300)
    wrong = (x, torch.zeros(300, dtype=torch.long))
    student = LogitDistillation(epochs=20, alpha=1.0).apply(net(2), context(train=wrong, teacher=teacher))
    test, _ = toy(200, 9)
    with torch.no_grad():
        answers = teacher(test).argmax(1)
    assert accuracy(student, (test, answers)) > 0.85 > accuracy(net(2), (test, answers))
    assert state_sha256(teacher) == before
    assert not student.training


def test_the_teacher_runs_in_eval_mode():
    teacher = trained_teacher().train()
    before = state_sha256(teacher)
    LogitDistillation(epochs=1).apply(net(2), context(teacher=teacher))
    assert state_sha256(teacher) == before


def test_same_seed_same_bits_and_the_report_is_told():
    teacher = trained_teacher()
    notes: list[str] = []
    technique = LogitDistillation(epochs=0.7, fit=FitSettings(label_smoothing=0.1))
    students = [technique.apply(net(2), context(teacher=teacher, seed=seed, notes=notes)) for seed in (0, 0, 1)]
    hashes = [state_sha256(student) for student in students]
    assert hashes[0] == hashes[1] != hashes[2]
    assert notes[0].startswith(
        "Distilled for 0.7 epochs (2 steps); accuracy on the training batches of the last epoch "
    )


def test_a_finished_step_is_taken_up(tmp_path):
    teacher = trained_teacher()
    first = LogitDistillation().apply(net(2), context(teacher=teacher, workspace=tmp_path))
    again = LogitDistillation().apply(net(2), context(teacher=teacher, workspace=tmp_path, train=toy(300)))
    assert state_sha256(first) == state_sha256(again)


@pytest.mark.parametrize("change", [{"temperature": 3}, {"alpha": 0.5}])
def test_the_checkpoint_of_other_settings_or_another_teacher_is_refused(tmp_path, change):
    LogitDistillation().apply(net(2), context(teacher=net(1), workspace=tmp_path))
    with pytest.raises(RunFolderError, match="belongs to another fit"):
        LogitDistillation(**change).apply(net(2), context(teacher=net(1), workspace=tmp_path))
    with pytest.raises(RunFolderError, match="belongs to another fit"):
        LogitDistillation().apply(net(2), context(teacher=net(3), workspace=tmp_path))


@pytest.mark.slow
def test_a_named_teacher():
    images = (torch.randn(8, 3, 32, 32), torch.arange(8))
    student = LogitDistillation(teacher=ModelSpec(zoo="resnet20_cifar"), alpha=1).apply(
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), context(train=images)
    )
    assert student(images[0]).shape == (8, 10)


def test_what_is_missing_is_said():
    with pytest.raises(
        ModelError, match=r"distill\.logits has no teacher: give Context\(teacher=\.\.\.\), or name one"
    ):
        LogitDistillation().apply(net(2), context())
    with pytest.raises(DataError, match=r"distill\.logits needs training data"):
        LogitDistillation().apply(net(2), context(train=None, teacher=net(1)))
    student = net(2)
    with pytest.raises(ModelError, match="teacher and student are the same object"):
        LogitDistillation().apply(student, context(teacher=student))
    with pytest.raises(ModelError, match=r"output has shape \(100, 3\), the teacher's \(100, 4\)"):
        LogitDistillation().apply(net(2), context(teacher=copy.deepcopy(net(1, 4))))
    assert LogitDistillation.needs == {"train", "teacher"}


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"temperature": 0}, {"alpha": 1.1}, {"alpha": -0.1}, {"temprature": 2}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogitDistillation(**wrong)
