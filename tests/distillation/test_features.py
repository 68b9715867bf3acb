import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import Permute

from adaptkit.distillation import FeatureDistillation, LogitDistillation
from adaptkit.distillation.losses import hint_loss
from adaptkit.distillation.taps import (
    Pair,
    dry_run,
    find_pairs,
    last_at_each_resolution,
    regressor,
    same_blocks,
    to_same_resolution,
)
from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy
from adaptkit.surgery import replace_module
from adaptkit.training.checkpoint import state_sha256
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from tests.distillation.toys import image_context as context
from tests.distillation.toys import image_net as net
from tests.distillation.toys import images
from tests.distillation.toys import trained_image_teacher as trained_teacher


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_the_hint_is_the_relative_squared_error(shape, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(size=(2, *shape))
    expected = sum((a - b) ** 2 for a, b in zip(ours.flat, theirs.flat, strict=True)) / sum(b * b for b in theirs.flat)
    assert float(hint_loss(torch.from_numpy(ours), torch.from_numpy(theirs))) == pytest.approx(expected)
    assert float(hint_loss(torch.zeros(*shape), torch.from_numpy(theirs))) == pytest.approx(1)
    assert float(hint_loss(torch.zeros(2), torch.zeros(2))) == 0


def test_the_ends_of_the_stages_are_found():
    outputs = dry_run(resnet20_cifar(), (torch.zeros(1, 3, 32, 32),))
    assert last_at_each_resolution(outputs) == {(32, 32): "layer1", (16, 16): "layer2", (8, 8): "layer3"}
    shapes = {"a": (2, 5, 8), "b": (2, 5, 16), "c": (2, 1, 4), "d": (2, 9)}
    assert last_at_each_resolution({name: torch.zeros(shape) for name, shape in shapes.items()}) == {(5,): "b"}


def test_a_block_takes_over_from_the_removed_ones_after_it():
    teacher = resnet20_cifar()
    student = copy.deepcopy(teacher)
    for name in ("layer1.1", "layer1.2", "layer2.1"):
        replace_module(student, name, nn.Identity())
    pairs = find_pairs(student, teacher, (torch.zeros(1, 3, 32, 32),), None)
    assert [pair.student for pair in pairs] == ["layer1", "layer2.1", "layer2", "layer3.0", "layer3.1", "layer3"]
    assert all(pair.student == pair.teacher for pair in pairs)


def test_blocks_the_teacher_does_not_have_are_not_compared():
    student = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Sequential(nn.Linear(144, 4))
    )
    assert same_blocks(student, dry_run(student, (torch.zeros(1, 1, 8, 8),)), ["0", "3"]) == {"0": "0"}
    assert same_blocks(student, dry_run(student, (torch.zeros(1, 1, 8, 8),)), ["3"]) == {}


def test_pairs_of_networks_of_other_widths():
    pairs = find_pairs(net(3), net(8), (torch.zeros(2, 1, 8, 8),), None)
    assert [(pair.student, pair.teacher) for pair in pairs] == [("2", "2"), ("5", "5"), ("6", "6")]
    assert [pair.student_shape[1] for pair in pairs] == [3, 3, 3]
    assert [pair.teacher_shape[1] for pair in pairs] == [8, 8, 8]


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        ((2, 3, 4, 4), (2, 5, 4, 4), nn.Conv2d),
        ((2, 3, 4, 4, 4), (2, 5, 4, 4, 4), nn.Conv3d),
        ((2, 7, 3), (2, 7, 5), nn.Linear),
        ((2, 3), (2, 5), nn.Linear),
        ((2, 3, 4, 4), (2, 3, 8, 8), nn.Identity),
    ],
)
def test_a_regressor_leads_to_the_teachers_channels(ours, theirs, kind):
    layer = regressor(Pair("a", "b", ours, theirs))
    assert type(layer) is kind
    a, b = to_same_resolution(layer(torch.randn(ours)), torch.randn(theirs))
    assert a.shape == b.shape


def test_larger_features_are_averaged_down_side_by_side():
    a, b = to_same_resolution(torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 1, 2, 8))
    assert a.shape == b.shape == (1, 1, 2, 4)
    assert a.flatten().tolist() == [2, 3, 4, 5, 10, 11, 12, 13]


def test_a_student_cut_from_its_teacher_comes_back_faster_with_hints():
    teacher = trained_teacher()
    cut = copy.deepcopy(teacher)
    torch.manual_seed(5)
    cut[3].reset_parameters()
    features, logits = (
        technique.apply(copy.deepcopy(cut), context(teacher=teacher))
        for technique in (FeatureDistillation(epochs=10, weight=10), LogitDistillation(epochs=10))
    )
    test = images(400, 9)[0]
    with torch.no_grad():
        wanted = teacher[:6](test)
        errors = [float(hint_loss(student[:6](test), wanted)) for student in (features, logits)]
    assert errors[0] < 0.6 * errors[1]


def test_a_narrow_student_learns_and_nothing_stays_attached():
    teacher = trained_teacher()
    before, student, notes = state_sha256(teacher), net(4, seed=3), []
    names = set(student.state_dict())
    result = FeatureDistillation(epochs=40, alpha=0.5).apply(student, context(teacher=teacher, notes=notes))
    assert result is student
    assert set(student.state_dict()) == names
    assert not student.training
    assert not any(module._forward_hooks for net_ in (student, teacher) for module in net_.modules())
    assert state_sha256(teacher) == before
    assert accuracy(student, images(400, 9)) > 0.6
    assert notes[0] == "Features compared: 2, 5, 6."
    assert notes[1].startswith("Distilled for 40 epochs")


def test_named_layers_decide_and_the_same_seed_gives_the_same_bits(tmp_path):
    teacher, notes = trained_teacher(), []
    technique = FeatureDistillation(epochs=1, layers={"2": "5"})
    hashes = [
        state_sha256(technique.apply(net(4, seed=3), context(teacher=teacher, seed=seed, notes=notes, workspace=work)))
        for seed, work in ((0, None), (0, tmp_path), (0, tmp_path), (1, None))
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
    assert notes[0] == "Features compared: 2 with 5."


def test_nothing_stays_attached_after_an_error():
    teacher, student = net(8), net(4)
    student[0].weight.data.fill_(float("nan"))
    with pytest.raises(Exception, match="loss is nan"):
        FeatureDistillation(epochs=1).apply(student, context(teacher=teacher))
    assert not any(module._forward_hooks for net_ in (student, teacher) for module in net_.modules())


def test_what_cannot_be_compared_is_said():
    inputs = (torch.zeros(2, 1, 8, 8),)
    with pytest.raises(ModelError, match="the student has no layer 'layer7' that runs"):
        find_pairs(net(4), net(8), inputs, {"layer7": "2"})
    with pytest.raises(ModelError, match="the teacher has no layer 'layer7' that runs"):
        find_pairs(net(4), net(8), inputs, {"2": "layer7"})
    with pytest.raises(ModelError, match=r"'2' of the student returns \(2, 4, 8, 8\), layer '7' of the teacher \(2, 3"):
        find_pairs(net(4), net(8), inputs, {"2": "7"})
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ModelError, match="no two layers of the same resolution: name those to compare in `layers`"):
        FeatureDistillation().apply(flat, context(teacher=net(8)))
    assert FeatureDistillation(layers={"3": "3", "nowhere": "3"}).check(net(4)) == [
        "distill.features: Sequential has no layer 'nowhere' (layers)"
    ]
    with pytest.raises(ValueError, match="weight"):
        FeatureDistillation(weight=0)


def test_channels_that_come_last_are_compared_where_they_are_as_many():
    """A regressor and an average would take the rows of N × H × W × C for its channels."""
    inputs = (torch.zeros(1, 1, 8, 8),)
    narrow, wide = (nn.Sequential(nn.Conv2d(1, width, 1), Permute([0, 2, 3, 1])) for width in (3, 6))
    with pytest.raises(ModelError, match=r"'1' of the student returns \(1, 8, 8, 3\), .* \(1, 8, 8, 6\): .* compared"):
        find_pairs(narrow, wide, inputs, {"1": "1"})
    with pytest.raises(ModelError, match=r"\(1, 8, 8, 3\), layer '0' of the teacher \(1, 6, 8, 8\): .* compared"):
        find_pairs(narrow, wide, inputs, {"1": "0"})
    assert len(find_pairs(wide, wide, inputs, {"1": "1"})) == 1


def test_the_hints_fade():
    teacher = trained_teacher()
    technique = FeatureDistillation(epochs=1)
    with torch.no_grad(), technique.objective(net(8), teacher, context()) as (trained, loss):
        x, y = images(64)
        values = []
        for step in range(3):
            technique.after_step(trained, step, 2)
            values.append(float(loss(trained, x, y)[0]))
        outputs = float(technique.outputs_loss(trained(x), teacher(x), y))
    assert values[0] > values[1] > values[2]
    assert values[0] - values[1] == pytest.approx(values[1] - values[2], rel=1e-4)
    assert values[2] == pytest.approx(outputs, rel=1e-4)
