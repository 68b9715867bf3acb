import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.distillation import LogitDistillation, MultiTeacherDistillation
from adaptkit.distillation.teachers import confidence_weights, mixed_logits
from adaptkit.errors import ModelError, RecipeError, RunFolderError
from adaptkit.metrics.task import accuracy
from adaptkit.recipe import read_recipe
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import context, net, softmax, toy, trained_teacher

HERE = "tests.distillation.toys"
OTHER = {"python": f"{HERE}:net", "args": {"seed": 7}}


@given(
    count=st.integers(1, 3),
    teachers=st.integers(1, 4),
    classes=st.integers(2, 5),
    temperature=st.floats(0.5, 20),
    seed=st.integers(0, 99),
)
def test_the_mean_is_of_probabilities(count, teachers, classes, temperature, seed):
    rng = np.random.default_rng(seed)
    logits, weights = rng.normal(size=(teachers, count, classes)) * 3, rng.dirichlet(np.ones(teachers))
    ours = (mixed_logits(torch.from_numpy(logits), torch.from_numpy(weights), temperature) / temperature).softmax(1)
    for n in range(count):
        expected = sum(w * softmax(each[n] / temperature) for w, each in zip(weights, logits, strict=True))
        np.testing.assert_allclose(ours[n].numpy(), expected, rtol=1e-9)


@given(count=st.integers(1, 4), teachers=st.integers(2, 4), classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_confidence_weighs_sample_by_sample(count, teachers, classes, seed):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(teachers, count, classes)) * 3, rng.integers(0, classes, count)
    ours = confidence_weights(torch.from_numpy(logits), torch.from_numpy(target)).numpy()
    for n in range(count):
        inverse = np.array([1 / softmax(each[n])[target[n]] for each in logits])  # exp(CE)
        np.testing.assert_allclose(ours[:, n], (1 - inverse / inverse.sum()) / (teachers - 1), rtol=1e-9)
    np.testing.assert_allclose(ours.sum(0), 1)
    assert (ours >= 0).all()


def test_a_weight_of_zero_leaves_a_teacher_out():
    teacher = trained_teacher()
    several = MultiTeacherDistillation(teachers=[OTHER], weights=(2, 0), epochs=1)
    alone = LogitDistillation(epochs=1)
    students = [technique.apply(net(2), context(teacher=teacher)) for technique in (several, alone)]
    x = toy(50, 3)[0]
    torch.testing.assert_close(*(student(x) for student in students), rtol=1e-3, atol=1e-4)


def test_equal_teachers_are_one_teacher():
    x, _ = toy(20)
    logits = net(1).eval()(x).detach().double()
    same = torch.stack([logits, logits, logits])
    mixed = mixed_logits(same, torch.tensor([0.2, 0.3, 0.5], dtype=torch.double), 4.0)
    torch.testing.assert_close(mixed.softmax(1), logits.softmax(1))


@pytest.mark.parametrize("weights", ["equal", "confidence", (1, 3)])
def test_a_student_learns_and_the_same_seed_gives_the_same_bits(weights):
    teacher = trained_teacher()
    technique = MultiTeacherDistillation(teachers=[OTHER], weights=weights, epochs=10, alpha=0.5)
    students = [technique.apply(net(2), context(teacher=teacher, seed=seed)) for seed in (0, 0, 1)]
    hashes = [state_sha256(student) for student in students]
    assert hashes[0] == hashes[1] != hashes[2]
    assert accuracy(students[0], toy(300, 9)) > 0.8


def test_confidence_hears_the_teacher_that_is_right():
    """One teacher is trained, one is not: by confidence the student comes nearer to the trained one."""
    teacher, test = trained_teacher(), toy(400, 9)[0]
    distances = []
    for weights in ("confidence", "equal"):
        technique = MultiTeacherDistillation(teachers=[OTHER, OTHER], weights=weights, epochs=10, alpha=1)
        student = technique.apply(net(2), context(teacher=teacher))
        with torch.no_grad():
            distances.append(float((student(test).softmax(1) - teacher(test).softmax(1)).abs().mean()))
    assert distances[0] < 0.9 * distances[1]


def test_the_checkpoint_knows_every_teacher(tmp_path):
    def step(seed):
        return MultiTeacherDistillation(teachers=[{"python": f"{HERE}:net", "args": {"seed": 7}}]).apply(
            net(2), context(teacher=net(seed), workspace=tmp_path)
        )

    assert state_sha256(step(1)) == state_sha256(step(1))
    with pytest.raises(RunFolderError, match="belongs to another fit"):
        step(3)


def test_what_cannot_be_is_said():
    with pytest.raises(ModelError, match=r"distill\.multi_teacher has no teacher"):
        MultiTeacherDistillation(teachers=[OTHER]).apply(net(2), context())
    four = {"python": f"{HERE}:net", "args": {"seed": 7, "classes": 4}}
    with pytest.raises(ModelError, match=r"the teachers' outputs have shapes \(100, 3\), \(100, 4\)"):
        MultiTeacherDistillation(teachers=[four]).apply(net(2), context(teacher=net(1)))
    with pytest.raises(ModelError, match=r"output has shape \(100, 3\), the teacher's \(100, 4\)"):
        MultiTeacherDistillation(teachers=[four]).apply(net(2), context(teacher=net(1, 4)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "teachers"),
        ({"teachers": []}, "teachers"),
        ({"teachers": [OTHER], "weights": (1,)}, "weights has 1 numbers for 2 teachers, the first one included"),
        ({"teachers": [OTHER], "weights": (0, 0)}, "weights are all 0"),
        ({"teachers": [OTHER], "weights": (1, -1)}, "weights"),
        ({"teachers": [OTHER], "weights": "best"}, "weights"),
        ({"teachers": [{"zoo": "a", "python": "b"}]}, "give exactly one of"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        MultiTeacherDistillation(**wrong)


def test_the_files_of_every_teacher_are_looked_for_before_any_work(tmp_path):
    text = """\
version: 1
name: t
model: {zoo: lenet5_digits}
data: {digits: true}
steps:
  - distill.multi_teacher:
      teachers:
        - {zoo: resnet_digits, weights: there.safetensors}
        - {zoo: resnet_digit}
"""
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert len(caught.value.problems) == 2
    assert "steps.0.distill.multi_teacher.teachers.0.weights: no such file: " in caught.value.problems[0]
    assert "teachers.1.zoo: no model 'resnet_digit' in the zoo" in caught.value.problems[1]
    (tmp_path / "there.safetensors").touch()
    (tmp_path / "r.yaml").write_text(text.replace("resnet_digit}", "resnet_digits}"))
    (step,) = read_recipe(tmp_path / "r.yaml").steps
    assert [spec.weights for spec in step.teachers] == [str(tmp_path / "there.safetensors"), None]
