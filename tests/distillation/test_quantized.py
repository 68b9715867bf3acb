import copy

import pytest
import torch

from adaptkit.distillation.quantized import QuantizedDistillation
from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.metrics.task import accuracy
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.quantization.static import StaticQuantization
from adaptkit.runtime.model import AdaptedModel
from adaptkit.training.checkpoint import state_sha256
from tests.distillation.toys import image_context, image_net, images, trained_image_teacher

SMALL = {"calibration": 64, "epochs": 2, "weight_bits": 2, "rounding": "nearest"}


def context(**changes):
    return image_context(calibration=images(64)).replace(**changes)


def distance(student, teacher, x) -> float:
    with torch.no_grad():
        return float((student(x).softmax(1) - teacher(x).softmax(1)).abs().mean())


def test_a_student_of_two_bits_comes_nearer_to_its_teacher():
    teacher, notes = trained_image_teacher(), []
    before = state_sha256(teacher)
    rounded = QuantizedDistillation(**{**SMALL, "epochs": 1e-9}, fit={"learning_rate": 1e-9}).apply(
        copy.deepcopy(teacher), context(teacher=teacher)
    )
    student = QuantizedDistillation(**{**SMALL, "epochs": 10}).apply(
        copy.deepcopy(teacher), context(teacher=teacher, notes=notes)
    )
    x, y = images(400, 9)
    assert isinstance(student, QuantizedModel)
    assert distance(student, teacher, x) < 0.8 * distance(rounded, teacher, x)
    assert accuracy(student, (x, y)) > 0.6
    assert state_sha256(teacher) == before
    assert "trained for 10 epochs" in " ".join(notes)


def test_a_model_that_is_quantized_already_goes_on_from_there(tmp_path):
    """Its bits are its own, its float weights are trained on; the file computes what the student computes."""
    teacher = trained_image_teacher()
    quantized = StaticQuantization(calibration=64).apply(copy.deepcopy(teacher), context(teacher=teacher))
    bits = {key: grid.bits for key, grid in quantized.plan.tensors.items()}
    student = QuantizedDistillation(**SMALL).apply(quantized, context(teacher=teacher))
    assert {key: grid.bits for key, grid in student.plan.tensors.items()} == bits
    x = images(40, 9)[0]
    export_onnx(student, (x[:2],), tmp_path / "model.onnx")
    logits = torch.from_numpy(AdaptedModel.load(tmp_path / "model.onnx").predict(x.numpy()))
    assert float((logits.argmax(1) == student(x).argmax(1)).float().mean()) == 1


def test_a_larger_teacher_and_the_same_seed_gives_the_same_bits():
    larger = {"python": "tests.distillation.toys:trained_image_teacher"}
    hashes = [
        state_sha256(
            QuantizedDistillation(**SMALL, teacher=larger).apply(image_net(4, seed=3), context(seed=seed)).model
        )
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_is_missing_is_said():
    with pytest.raises(ModelError, match=r"distill\.quantized has no teacher"):
        QuantizedDistillation(**SMALL).apply(image_net(4), context())
    with pytest.raises(DataError, match=r"distill\.quantized needs training data"):
        QuantizedDistillation(**SMALL).apply(image_net(4), context(train=None, teacher=image_net(8)))
    student = image_net(4)
    with pytest.raises(ModelError, match="teacher and student are the same object"):
        QuantizedDistillation(**SMALL).apply(student, context(teacher=student))
    five = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    with pytest.raises(ModelError, match="both must have the same classes"):
        QuantizedDistillation(**SMALL).apply(image_net(4), context(teacher=five))


@pytest.mark.parametrize(
    "wrong", [{"weight_bits": 0}, {"weight_bits": 9}, {"epochs": 0}, {"alpha": 2}, {"temperature": 0}, {"bits": 3}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QuantizedDistillation(**wrong)
