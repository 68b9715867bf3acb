"""What every technique must hold to, whatever it does."""

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from adaptkit.export.files import file_bytes
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.saved import float_model, load, save
from adaptkit.runtime.model import AdaptedModel
from adaptkit.technique import Context, Technique
from adaptkit.techniques import TECHNIQUES
from adaptkit.training.checkpoint import state_sha256
from adaptkit_zoo.digits import resnet_digits
from tests.contract.settings import SETTINGS

pytestmark = pytest.mark.parametrize("name", TECHNIQUES)


def _model(outputs: int = 10) -> nn.Module:
    torch.manual_seed(3)
    model = resnet_digits(num_classes=outputs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def _context() -> Context:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(128, 1, 8, 8, generator=generator)
    y = torch.randint(10, (128,), generator=generator)
    return Context(example_inputs=(x[:2],), train=(x, y), validation=(x, y), calibration=(x, y), teacher=_model())


@pytest.fixture(scope="module")
def bytes_before(tmp_path_factory) -> int:
    path = tmp_path_factory.mktemp("before") / "model.onnx"
    export_onnx(_model(), (torch.rand(2, 1, 8, 8),), path)
    return file_bytes(path)


def _technique(name: str) -> Technique:
    return TECHNIQUES[name](**SETTINGS[name])


def _apply(name: str) -> nn.Module:
    technique = _technique(name)
    context = _context()
    kept = {"example_inputs", "notes", "seed", *technique.needs}
    absent = {field: None for field in ("train", "validation", "calibration", "teacher") if field not in kept}
    return technique.apply(_model(), context.replace(**absent))


def test_name_and_table_agree(name: str):
    assert TECHNIQUES[name].name == name


def test_documented(name: str):
    technique = TECHNIQUES[name]
    assert inspect.getdoc(technique) != inspect.getdoc(Technique)
    assert ">>>" in inspect.getdoc(technique)
    assert technique.needs <= {"train", "validation", "calibration", "teacher"}


def test_settings_survive_json_and_are_frozen(name: str):
    technique = _technique(name)
    assert TECHNIQUES[name].model_validate_json(technique.model_dump_json()) == technique
    with pytest.raises(ValueError, match="frozen"):
        setattr(technique, next(iter(type(technique).model_fields)), 1)


def test_unknown_setting_is_refused(name: str):
    with pytest.raises(ValueError, match="no_such_setting"):
        TECHNIQUES[name](**SETTINGS[name], no_such_setting=1)


def test_check_finds_no_fault_and_changes_nothing(name: str):
    model = _model()
    before = state_sha256(model)
    assert _technique(name).check(model) == []
    assert state_sha256(model) == before


def test_only_what_it_needs_is_enough(name: str):
    compressed = _apply(name)
    x = torch.rand(3, 1, 8, 8)
    assert compressed(x).shape == (3, 10)
    assert torch.isfinite(compressed(x)).all()


def test_numbers_to_predict_in_place_of_classes(name: str):
    if TECHNIQUES[name].of_classes:
        pytest.skip("it is of classes only")
    x, y = _context().train
    numbers = (x, x.mean((1, 2, 3)) + y / 10)
    context = Context((x[:2],), train=numbers, validation=numbers, calibration=numbers, teacher=_model(1))
    technique = _technique(name)
    if name == "prune.load_balanced":  # one row cannot be shared out
        technique = technique.model_copy(update={"ignore": ("linear",)})
    answers = technique.apply(_model(1), context)(x)
    assert answers.shape == (128, 1)
    assert torch.isfinite(answers).all()


def test_the_teacher_is_not_changed_so_that_later_steps_can_share_it(name: str):
    if "teacher" not in TECHNIQUES[name].needs:
        pytest.skip("it needs no teacher")
    teacher = _model()
    before = state_sha256(teacher), [module.training for module in teacher.modules()]
    _technique(name).apply(_model(), _context().replace(teacher=teacher))
    assert (state_sha256(teacher), [module.training for module in teacher.modules()]) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())


def test_same_seed_same_bytes(name: str):
    assert state_sha256(_apply(name)) == state_sha256(_apply(name))


def test_saves_without_pickle_and_loads_onto_the_unmodified_class(name: str, tmp_path):
    compressed = _apply(name).eval()
    save(compressed, resnet_digits(), tmp_path)
    loaded = load(resnet_digits, tmp_path)
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(loaded(x), compressed(x), rtol=0, atol=1e-6)
    assert not list(tmp_path.glob("*.p*t*"))


def test_trains_on_after_loading(name: str, tmp_path):
    save(_apply(name), resnet_digits(), tmp_path)
    loaded = load(resnet_digits, tmp_path)
    loaded.train()
    before = copy.deepcopy(loaded.state_dict())
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    nn.functional.cross_entropy(loaded(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
    optimizer.step()
    assert any(not torch.equal(before[key], value) for key, value in loaded.state_dict().items())


def test_no_layer_grows(name: str):
    after = dict(float_model(_apply(name)).named_parameters())
    for path, layer in _model().named_modules():
        before = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        assert before == 0 or sum(p.numel() for key, p in after.items() if key.startswith(f"{path}.")) <= before


def test_exports_runs_on_onnx_runtime_and_the_file_does_not_grow(name: str, tmp_path, bytes_before: int):
    compressed = _apply(name).eval()
    export_onnx(compressed, (torch.rand(2, 1, 8, 8),), tmp_path / "model.onnx")
    x = torch.rand(7, 1, 8, 8)
    logits = torch.from_numpy(AdaptedModel.load(tmp_path / "model.onnx").predict(x.numpy()))
    expected = compressed(x).detach()
    assert (logits - expected).abs().max() <= 0.05 * expected.abs().max()
    assert file_bytes(tmp_path / "model.onnx") <= bytes_before


def test_needs_nothing_of_torch_to_be_imported(name: str):
    module = TECHNIQUES[name].__module__
    code = f"import sys, {module}; sys.exit(int('torch' in sys.modules or 'onnxruntime' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_technique_has_settings(name: str):
    assert name in SETTINGS
