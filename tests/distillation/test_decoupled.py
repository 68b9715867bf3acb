import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.distillation import DecoupledDistillation
from adaptkit.distillation.losses import decoupled_loss, hinton_loss
from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import context, net, softmax, toy, trained_teacher


def divergence(p, q) -> float:
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def parts(student, teacher, y, temperature) -> tuple[float, float]:
    """TCKD and NCKD of one sample, as the paper defines them, in double precision."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    target = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
    return target, divergence(*(np.delete(probabilities, y) / (1 - probabilities[y]) for probabilities in (p, q)))


@given(
    count=st.integers(1, 5),
    classes=st.integers(2, 6),
    temperature=st.floats(0.5, 20),
    weights=st.tuples(st.floats(0, 10), st.floats(0, 10)),
    seed=st.integers(0, 99),
)
def test_the_loss_is_the_papers(count, classes, temperature, weights, seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, count, classes))
    target = rng.integers(0, classes, count)
    expected = 0.0
    for s, t, y in zip(student, teacher, target, strict=True):
        of_target, of_others = parts(s, t, y, temperature)
        expected += temperature**2 * (weights[0] * of_target + weights[1] * of_others) / count
    ours = decoupled_loss(*map(torch.from_numpy, (student, teacher, target)), temperature, *weights)
    assert float(ours) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(classes=st.integers(2, 6), temperature=st.floats(0.5, 20), seed=st.integers(0, 99))
def test_the_two_parts_make_up_hintons_loss(classes, temperature, seed):
    """KL = TCKD + (1 - p_y) NCKD, the identity the paper starts from, for every class as the target."""
    student, teacher = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 1, classes)))
    whole = hinton_loss(student, teacher, torch.zeros(1, dtype=torch.long), temperature, alpha=1.0)
    for y in range(classes):
        doubt = 1 - float((teacher / temperature).softmax(1)[0, y])
        ours = decoupled_loss(student, teacher, torch.tensor([y]), temperature, 1.0, doubt)
        assert float(ours) == pytest.approx(float(whole), abs=1e-9)


def test_a_sure_teacher_still_teaches():
    """Where the teacher's doubt is nothing to a float, the gradient on the other classes is still there."""
    teacher, target = torch.tensor([[60.0, 2.0, 0.0]]), torch.tensor([0])
    for loss, low in ((hinton_loss, False), (decoupled_loss, True)):
        student = torch.zeros(1, 3, requires_grad=True)
        arguments = (1.0, 1.0, 1.0) if loss is decoupled_loss else (1.0, 1.0)
        loss(student, teacher, target, *arguments).backward()
        assert torch.isfinite(student.grad).all()
        assert (abs(float(student.grad[0, 1] - student.grad[0, 2])) > 0.1) is low


def test_a_shift_of_all_logits_changes_nothing_and_two_classes_have_no_others():
    student, teacher, target = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    losses = [decoupled_loss(student + shift, teacher - shift, target, 2.0, 1.0, 8.0) for shift in (0, 5)]
    torch.testing.assert_close(*losses)
    two = [decoupled_loss(student[:, :2], teacher[:, :2], target % 2, 2.0, 1.0, weight) for weight in (0, 8)]
    torch.testing.assert_close(*two)


def test_a_student_learns_from_its_teacher_on_few_samples():
    """Ten samples say little by themselves; the teacher's answers to them say more."""
    teacher = trained_teacher()
    few, test = toy(40, 5), toy(400, 9)
    student = DecoupledDistillation(epochs=40).apply(net(2), context(train=few, teacher=teacher))
    alone = DecoupledDistillation(epochs=40, target_weight=0, other_weight=0).apply(
        net(2), context(train=few, teacher=teacher)
    )
    with torch.no_grad():
        answers = teacher(test[0]).argmax(1)
    assert accuracy(student, (test[0], answers)) > accuracy(alone, (test[0], answers)) + 0.02
    assert not student.training


def test_label_smoothing_counts_and_the_same_seed_gives_the_same_bits():
    teacher = trained_teacher()
    hashes = [
        state_sha256(
            DecoupledDistillation(fit={"label_smoothing": smoothing}).apply(net(2), context(teacher=teacher, seed=seed))
        )
        for smoothing, seed in ((0.1, 0), (0.1, 0), (0, 0), (0.1, 1))
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_other_classes_are_refused():
    with pytest.raises(ModelError, match=r"output has shape \(100, 3\), the teacher's \(100, 4\)"):
        DecoupledDistillation().apply(net(2), context(teacher=net(1, 4)))


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"target_weight": -1}, {"other_weight": -1}, {"alpha": 0.5}, {"epochs": 0}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecoupledDistillation(**wrong)
