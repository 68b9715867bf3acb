import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptkit.distillation import RelationDistillation
from adaptkit.distillation.losses import dist_loss
from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import context, net, softmax, toy, trained_teacher


def by_hand(student, teacher, temperature, inter, intra) -> float:
    p, q = (np.array([softmax(row / temperature) for row in logits]) for logits in (teacher, student))
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return temperature**2 * (inter * rows + intra * columns)


def smallest_deviation(student, teacher, temperature) -> float:
    """Of a row or a column of probabilities; below a ten-thousandth the loss leaves them out, to have a gradient."""
    tables = [np.array([softmax(row / temperature) for row in logits]) for logits in (teacher, student)]
    return min(float(np.linalg.norm(t - t.mean(dim, keepdims=True), axis=dim).min()) for t in tables for dim in (0, 1))


@given(
    count=st.integers(2, 6),
    classes=st.integers(2, 6),
    temperature=st.floats(1, 10),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    seed=st.integers(0, 99),
)
def test_the_loss_is_the_papers(count, classes, temperature, weights, seed):
    student, teacher = np.random.default_rng(seed).normal(size=(2, count, classes))
    assume(smallest_deviation(student, teacher, temperature) > 1e-4)
    ours = dist_loss(*map(torch.from_numpy, (student, teacher)), temperature, *weights)
    assert float(ours) == pytest.approx(by_hand(student, teacher, temperature, *weights), rel=1e-6, abs=1e-8)


@given(share=st.floats(0.2, 1), seed=st.integers(0, 99))
def test_a_student_that_is_less_sure_pays_nothing(share, seed):
    """Probabilities p = share · t + (1 - share) / classes have the teacher's relations, not its values."""
    teacher = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, 4)))
    student = (share * teacher.softmax(1) + (1 - share) / 4).log()
    assert float(dist_loss(student, teacher, 1.0, 1.0, 1.0)) == pytest.approx(0, abs=1e-7)


def test_the_limits():
    teacher = torch.tensor([[4.0, 0.0], [0.0, 4.0]], dtype=torch.double)
    assert float(dist_loss(teacher, teacher, 1.0, 1.0, 1.0)) == pytest.approx(0, abs=1e-9)
    assert float(dist_loss(-teacher, teacher, 1.0, 1.0, 1.0)) == pytest.approx(4)
    assert float(dist_loss(-teacher, teacher, 3.0, 1.0, 0.0)) == pytest.approx(18)


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 1) * torch.tensor([[1.0, 0.0, 2.0]])])
def test_outputs_without_deviation_have_a_gradient_of_a_usual_size(student):
    """A head of zeros, or the same output for all samples, must not throw the student away."""
    student = student.clone().requires_grad_()
    dist_loss(student, torch.randn(4, 3), 4.0, 2.0, 2.0).backward()
    assert torch.isfinite(student.grad).all()
    one = torch.zeros(1, 3, requires_grad=True)
    dist_loss(one, torch.randn(1, 3), 4.0, 0.0, 2.0).backward()
    assert float(one.grad.abs().max()) < 1e-3


def test_a_student_ranks_as_its_teacher_does():
    teacher = trained_teacher()
    test = toy(400, 9)
    student = RelationDistillation(epochs=10).apply(net(2), context(teacher=teacher))
    alone = RelationDistillation(epochs=10, inter_weight=0, intra_weight=0).apply(net(2), context(teacher=teacher))
    with torch.no_grad():
        wanted = teacher(test[0])
        relations = [float(dist_loss(model(test[0]), wanted, 1.0, 1.0, 1.0)) for model in (student, alone)]
    assert relations[0] < 0.7 * relations[1]
    assert accuracy(student, (test[0], wanted.argmax(1))) > 0.9


def test_the_same_seed_gives_the_same_bits():
    teacher = trained_teacher()
    hashes = [state_sha256(RelationDistillation().apply(net(2), context(teacher=teacher, seed=s))) for s in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_other_classes_are_refused():
    with pytest.raises(ModelError, match=r"output has shape \(100, 3\), the teacher's \(100, 4\)"):
        RelationDistillation().apply(net(2), context(teacher=net(1, 4)))


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"inter_weight": -1}, {"intra_weight": -1}, {"alpha": 0.5}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RelationDistillation(**wrong)
