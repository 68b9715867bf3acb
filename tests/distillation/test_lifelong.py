import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adaptkit.distillation import LifelongDistillation
from adaptkit.distillation.head import grow_head
from adaptkit.distillation.losses import lifelong_loss
from adaptkit.distillation.tasks import of_new_task, task_accuracies
from adaptkit.errors import DataError, ModelError
from adaptkit.loading.saved import load, save
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.fit import fit
from tests.distillation.toys import softmax


@given(
    count=st.integers(1, 4),
    tasks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    temperature=st.floats(0.5, 10),
    weight=st.floats(0, 5),
    smoothing=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_the_loss_is_the_papers(count, tasks, temperature, weight, smoothing, seed):
    old, new = tasks
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(count, old + new)), rng.normal(size=(count, old + 1))
    target = rng.integers(old, old + new, count)
    expected = 0.0
    for s, t, y in zip(student, teacher, target, strict=True):
        p, q = softmax(t[:old] / temperature), softmax(s[:old] / temperature)
        wanted = smoothing / new + (1 - smoothing) * (np.arange(new) == y - old)
        expected += weight * (p * np.log(p / q)).sum() - (wanted * np.log(softmax(s[old:]))).sum()
    tensors = map(torch.from_numpy, (student, teacher, target))
    ours = lifelong_loss(*tensors, old, temperature, weight, smoothing)
    assert float(ours) == pytest.approx(expected / count, rel=1e-6, abs=1e-8)


def test_the_two_tasks_do_not_touch():
    """The old task's gradient is on the old outputs, the new one's on the new."""
    student = torch.randn(3, 5, requires_grad=True)
    lifelong_loss(student, student[:, :2].detach(), torch.tensor([2, 3, 4]), 2, 2.0, 1.0).backward()
    assert float(student.grad[:, :2].abs().max()) < 1e-6 < float(student.grad[:, 2:].abs().min())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 3)),
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)),
        nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
)
def test_a_grown_head_keeps_its_outputs(model):
    x = torch.randn(5, 4)
    before = model(x)
    grow_head(model, (x[:1],), count=2, seed=0)
    assert model(x).shape == (5, 5)
    torch.testing.assert_close(model(x)[:, :3], before)


@pytest.mark.parametrize(
    "end", [[nn.Linear(4, 3), nn.LayerNorm(3)], [nn.Identity()], [nn.Linear(4, 6), nn.Unflatten(1, (3, 2))]]
)
def test_a_head_that_cannot_grow_is_said_and_the_model_is_as_it_was(end):
    model = nn.Sequential(*end)
    before = state_sha256(model)
    with pytest.raises(ModelError, match="outputs of Sequential do not come out of a linear layer or a convolution"):
        grow_head(model, (torch.zeros(1, 4),), count=2, seed=0)
    assert state_sha256(model) == before


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=30), old=st.integers(1, 6))
def test_only_samples_of_the_new_task_are_fed(labels, old):
    y = torch.tensor(labels)
    x = y[:, None].float()
    wanted = sorted(label for label in labels if label >= old)
    if not wanted:
        with pytest.raises(DataError, match=f"no sample of the new task: its classes have the numbers from {old} on"):
            of_new_task((x, y), old, seed=0)
        return
    batches = of_new_task((x, y), old, seed=0)
    fed = torch.cat([y for _, y in batches])
    assert sorted(fed.tolist()) == wanted
    assert torch.equal(torch.cat([x for x, _ in batches])[:, 0].long(), fed)


def test_a_loader_is_filtered_too():
    loader = [(torch.zeros(4, 2), torch.tensor(y)) for y in ([0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 1, 3], [2, 2, 3, 3])]
    batches = of_new_task(loader, 2, seed=0)
    assert [y.tolist() for _, y in batches] == [[2, 3, 3], [2, 2, 3, 3]]
    assert len(batches) == 2
    with pytest.raises(DataError, match="no sample of the new task"):
        of_new_task(loader, 4, seed=0)


def by_hand(model, x, y, old) -> tuple[float, float]:
    hits = {True: [], False: []}
    for sample, label in zip(x, y.tolist(), strict=True):
        output = model(sample[None])[0].tolist()
        own = range(old) if label < old else range(old, len(output))
        hits[label < old].append(max(own, key=lambda k: output[k]) == label)
    return np.mean(hits[True]), np.mean(hits[False])


def old_and_new(count: int, seed: int = 0) -> TensorDataset:
    """Numbered samples; which ones are of the new task, from class 2 on, is drawn."""
    y = torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(seed))
    return TensorDataset(torch.arange(count, dtype=torch.float32)[:, None], y)


@pytest.mark.parametrize(("count", "batch_size", "seed"), [(9, 4, 1), (23, 2, 2), (24, 6, 3), (40, 5, 4)])
def test_a_shuffling_loader_gives_the_same_number_of_batches_each_epoch(count, batch_size, seed):
    data = old_and_new(count, seed)
    new = {i for i, y in enumerate(data.tensors[1].tolist()) if y >= 2}
    batches = of_new_task(DataLoader(data, batch_size, shuffle=True), old_classes=2, seed=seed)
    for epoch in range(3):
        given_batches = list(batches.epoch(epoch))
        assert len(given_batches) == len(batches) == -(-len(new) // batch_size)
        assert sorted(int(i) for x, _ in given_batches for i in x) == sorted(new)
        assert max(len(y) for _, y in given_batches) - min(len(y) for _, y in given_batches) <= 1
        for (x, y), (again, _) in zip(given_batches[1:], batches.epoch(epoch, 1), strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, data.tensors[1][x[:, 0].long()])


def test_an_epoch_with_fewer_new_samples_goes_on_with_the_first_ones():
    """A loader that drops its last batch leaves other samples out each epoch."""
    loader = DataLoader(old_and_new(23), 6, shuffle=True, drop_last=True)
    batches = of_new_task(loader, old_classes=2, seed=0)
    sizes = {tuple(len(y) for _, y in batches.epoch(epoch)) for epoch in range(20)}
    assert sizes == {tuple(len(y) for _, y in batches)}


def test_counting_the_new_samples_leaves_the_random_state():
    before = torch.random.get_rng_state()
    of_new_task(DataLoader(old_and_new(23), 6, shuffle=True), old_classes=2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_both_accuracies_are_counted_among_the_classes_of_the_task():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 6), torch.randn(40, 3), torch.arange(40) % 6
    found = task_accuracies(model, (x, y), 2)
    assert (found.old, found.new) == pytest.approx(by_hand(model, x, y, 2))
    assert task_accuracies(model, (x[y < 2], y[y < 2]), 2).new is None
    assert task_accuracies(model, (x[y >= 2], y[y >= 2]), 2).old is None


# Which of five numbers is the largest; the old task is about the first two, the new one about the other three.


def tasks(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return x, x.argmax(1)


def build(classes: int = 2) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, classes))


def old_model() -> nn.Module:
    x, y = tasks(1500, 3)
    model = build()
    fit(model, (x[y < 2], y[y < 2]), epochs=15)
    return model


def context(teacher: nn.Module | None, **changes) -> Context:
    return Context(
        example_inputs=(torch.zeros(1, 5),), train=tasks(600, 0), validation=tasks(600, 1), teacher=teacher
    ).replace(**changes)


def test_the_old_task_is_kept_while_the_new_one_is_learnt(tmp_path):
    model, notes, lost = old_model(), [], []
    x, y = tasks(600, 9)
    for weight in (5, 0):
        student = LifelongDistillation(new_classes=3, epochs=10, weight=weight).apply(
            copy.deepcopy(model), context(copy.deepcopy(model), notes=notes)
        )
        found = task_accuracies(student, (x, y), 2)
        assert (found.old > 0.9, found.new > 0.8) == (True, True)
        with torch.no_grad():
            old = x[y < 2]
            lost.append(float((student(old)[:, :2].softmax(1) - model(old).softmax(1)).abs().mean()))
    assert lost[0] < 0.6 * lost[1]
    assert notes[0].startswith("Distilled for 10 epochs")
    assert notes[1].startswith("On the validation data, each task among its own classes: old task: accuracy 9")
    save(student, build(), tmp_path)
    torch.testing.assert_close(load(build, tmp_path)(x), student(x))


def test_outputs_that_are_there_already_and_the_same_seed_gives_the_same_bits():
    model = build(5)
    technique = LifelongDistillation(old_classes=2, epochs=2)
    hashes = [
        state_sha256(technique.apply(copy.deepcopy(model), context(copy.deepcopy(model), seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_task_without_validation_samples_is_said():
    x, y = tasks(600, 1)
    notes: list[str] = []
    LifelongDistillation(old_classes=2).apply(
        build(5), context(build(5), validation=(x[y >= 2], y[y >= 2]), notes=notes)
    )
    assert "old task: no sample in the validation data; new task: accuracy " in notes[1]


def test_what_cannot_be_is_said():
    with pytest.raises(ModelError, match=r"has 5 outputs, the old task 5 classes \(old_classes\); no output is left"):
        LifelongDistillation(old_classes=5).apply(build(5), context(build(5)))
    with pytest.raises(ModelError, match=r"the teacher has 1 outputs, the old task 2 classes"):
        LifelongDistillation(old_classes=2).apply(build(5), context(build(1)))
    with pytest.raises(ModelError, match=r"distill\.lifelong has no teacher"):
        LifelongDistillation(old_classes=2).apply(build(5), context(None))
    for missing in ("train", "validation"):
        with pytest.raises(DataError, match=r"distill\.lifelong needs training and validation data"):
            LifelongDistillation(old_classes=2).apply(build(5), context(build(5), **{missing: None}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no output is left for the new task: give old_classes, new_classes or both"),
        ({"old_classes": 0}, "old_classes"),
        ({"new_classes": -1}, "new_classes"),
        ({"old_classes": 1, "temperature": 0}, "temperature"),
        ({"old_classes": 1, "weight": -1}, "weight"),
        ({"old_classes": 1, "alpha": 0.5}, "alpha"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        LifelongDistillation(**wrong)
