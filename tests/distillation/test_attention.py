import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import Permute

from adaptkit.distillation import AttentionDistillation
from adaptkit.distillation.losses import attention_loss, attention_map
from adaptkit.distillation.taps import Pair, require_places
from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import image_context, image_net, images, trained_image_teacher


def map_by_hand(features) -> np.ndarray:
    """Of one sample, C × places."""
    energy = np.array([sum(value * value for value in place) for place in features.T])
    return energy / np.sqrt((energy * energy).sum())


@given(
    count=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_the_loss_is_the_papers_over_images(count, channels, size, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.normal(size=(count, number, *size)) for number in channels)
    squares = [
        ((map_by_hand(s.reshape(len(s), -1)) - map_by_hand(t.reshape(len(t), -1))) ** 2).mean()
        for s, t in zip(ours, theirs, strict=True)
    ]
    assert float(attention_loss(*map(torch.from_numpy, (ours, theirs)))) == pytest.approx(np.mean(squares), abs=1e-12)


def test_a_sequence_has_its_channels_last():
    tokens = torch.randn(2, 7, 5, dtype=torch.double)
    expected = np.stack([map_by_hand(sample.numpy().T) for sample in tokens])
    np.testing.assert_allclose(attention_map(tokens).numpy(), expected)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_neither_scale_nor_sign_nor_order_of_channels_matters(scale, seed):
    features = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 4, 4)))
    changed = -scale * features[:, [2, 0, 1]]
    assert float(attention_loss(features, changed)) == pytest.approx(0, abs=1e-12)
    assert attention_map(features).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_the_limits():
    left, right = torch.zeros(1, 2, 1, 2), torch.zeros(1, 3, 1, 2)
    left[..., 0], right[..., 1] = 3.0, -2.0
    assert float(attention_loss(left, right)) == pytest.approx(1)  # (1² + 1²) / 2 places
    silent = torch.zeros(1, 2, 1, 2, requires_grad=True)
    attention_loss(silent, right).backward()
    assert torch.equal(silent.grad, torch.zeros_like(silent))


def test_a_narrow_student_looks_where_its_teacher_looks():
    teacher, notes = trained_image_teacher(), []
    before = state_sha256(teacher)
    students = [
        AttentionDistillation(epochs=15, alpha=0, weight=weight).apply(
            image_net(4, seed=3), image_context(teacher=teacher, notes=notes)
        )
        for weight in (1000, 1e-9)
    ]
    test = images(400, 9)
    with torch.no_grad():
        losses = [float(attention_loss(student[:6](test[0]), teacher[:6](test[0]))) for student in students]
    assert losses[0] < 0.8 * losses[1]
    assert accuracy(students[0], test) > 0.6
    assert state_sha256(teacher) == before
    assert not any(module._forward_hooks for net in (*students, teacher) for module in net.modules())
    assert notes[0] == "Attention compared: 2, 5, 6."


def test_other_resolutions_are_compared_at_the_smaller_one():
    teacher = trained_image_teacher()
    technique = AttentionDistillation(layers={"5": "2"})
    hashes = [
        state_sha256(technique.apply(image_net(4, seed=3), image_context(teacher=teacher, seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ModelError, match=r"layer '8' returns \(1, 4\): attention is compared where a layer returns an"):
        AttentionDistillation(layers={"8": "8"}).apply(image_net(4), image_context(teacher=image_net(8)))
    with pytest.raises(ModelError, match="the teacher has no layer 'layer7' that runs"):
        AttentionDistillation(layers={"2": "layer7"}).apply(image_net(4), image_context(teacher=image_net(8)))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ModelError, match="no two layers of the same resolution"):
        AttentionDistillation().apply(flat, image_context(teacher=image_net(8)))
    assert AttentionDistillation(layers={"2": "2", "nowhere": "2"}).check(image_net(4)) == [
        "distill.attention: Sequential has no layer 'nowhere' (layers)"
    ]
    assert AttentionDistillation().check(image_net(4)) == []


def windowed(width: int) -> nn.Module:
    """Stages that keep channels last, as in Swin, and a permutation after them."""
    return nn.Sequential(
        nn.Conv2d(1, width, 2, 2), Permute([0, 2, 3, 1]), nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)),
        Permute([0, 3, 1, 2]), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4),
    )  # fmt: skip


def test_channels_that_come_last_are_refused_and_their_permutation_is_not():
    student, teacher, notes = windowed(6), windowed(6), []
    context = image_context(teacher=teacher, notes=notes)
    for layers in (None, {"2": "2"}):
        with pytest.raises(ModelError, match=r"layer '2' returns \(1, 4, 4, 6\), channels last: .* name in `layers`"):
            AttentionDistillation(layers=layers).apply(student, context)
    AttentionDistillation(layers={"3": "3"}).apply(student, context)
    assert notes[0] == "Attention compared: 3."


@pytest.mark.parametrize(
    ("shape", "refused"),
    [
        ((1, 8, 8, 96), True),
        ((1, 7, 8, 96), True),
        ((1, 96, 8, 8), False),
        ((1, 8, 8, 8), False),
        ((1, 64, 16, 32), False),
        ((1, 4, 8, 8, 96), True),
        ((1, 96, 4, 8, 8), False),
        ((1, 50, 96), False),
        ((50, 1, 96), True),
        ((16, 49, 96), True),
    ],
)
def test_where_a_layer_looks_is_read_off_its_shape(shape, refused):
    image = {3: (1, 3, 64, 64), 4: (1, 3, 64, 64), 5: (1, 3, 32, 64, 64)}[len(shape)]
    if shape == (1, 64, 16, 32):
        image = (1, 3, 64, 128)
    pairs = [Pair("stage", "stage", shape, shape)]
    if refused:
        with pytest.raises(ModelError, match=r"^layer 'stage' returns \("):
            require_places(pairs, image)
    else:
        require_places(pairs, image)


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"alpha": 2}, {"temperature": 0}, {"layers": ["2"]}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttentionDistillation(**wrong)
