"""The main job where targets are numbers to predict: a patient's diabetes a year on, from ten measurements."""

import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from torch import nn

from adaptkit.distillation.losses import soft_loss
from adaptkit.errors import DataError, ExportMismatch, RecipeError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.verify import certify, require
from adaptkit.loading.data import load_data
from adaptkit.pipeline import compress
from adaptkit.pruning.block_ranking import divergence
from adaptkit.quantization import StaticQuantization
from adaptkit.quantization.sensitivity import sensitivities
from adaptkit.recipe import Recipe, parse_recipe
from adaptkit.report import html, text
from adaptkit.report.schema import Report
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.losses import target_loss
from adaptkit.training.settings import FitSettings
from cli.main import main

RECIPE = """
version: 1
name: diabetes
model: {python: "diabetes_net:build", weights: WEIGHTS}
data: {npz: DATA, validation: 60, calibration: 60, test: 90, batch_size: 64}
steps:
  - prune.structured: {macs: 0.6, recovery_epochs: 5}
  - distill.logits: {epochs: 5}
  - quantize.static: {}
profile: {repeats: 5, warmup: 2}
metrics: [rmse, mae, r2]
gates: {max_r2_drop: 0.2}
"""
NET = """
from torch import nn

def build():
    last = nn.Linear(32, 1)
    return nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), last)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("diabetes")
    given = load_diabetes()
    x, y = given.data.astype(np.float32) * 20, (given.target - 152) / 77
    np.savez(path / "data.npz", x=x, y=y)
    (path / "diabetes_net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        import diabetes_net

        torch.manual_seed(0)
        model = diabetes_net.build()
        data = load_data(_recipe(path, weights=False).data, 0, path)
        fit(model, data.train, epochs=40, settings=FitSettings(learning_rate=0.01))
        save_file(model.state_dict(), path / "net.safetensors")
        yield path


def _recipe(folder, weights: bool = True, **changes: str) -> Recipe:
    text = RECIPE.replace("DATA", str(folder / "data.npz"))
    text = text.replace(", weights: WEIGHTS", f", weights: {folder / 'net.safetensors'}" if weights else "")
    return parse_recipe(text, overrides=[f"{key}={value}" for key, value in changes.items()])


@pytest.fixture(scope="module")
def run(folder):
    report = compress(_recipe(folder), folder / "run", progress=False)
    return folder / "run", report


def test_the_report_is_of_r2_as_scikit_learn_has_it(folder, run):
    path, report = run
    test = load_data(_recipe(folder).data, 0, folder).test
    x, y = (torch.cat(parts).numpy() for parts in zip(*test, strict=True))
    for file, figures in (("baseline.onnx", report.baseline), ("model.onnx", report.final)):
        wanted = r2_score(y, AdaptedModel.load(path / file).predict(x).ravel())
        assert figures.r2 == pytest.approx(wanted, abs=1e-6)
        assert figures.metrics["r2"].value == pytest.approx(wanted, abs=1e-6)
        assert (figures.accuracy, figures.validation_accuracy, figures.epr) == (None, None, None)
    assert report.baseline.r2 > 0.4
    found = report.r2_against_baseline
    assert found.value == pytest.approx(report.final.r2 - report.baseline.r2)
    assert found.low < found.value < found.high
    assert report.against_baseline is None
    assert [gate.name for gate in report.gates if gate.passed] == ["max_r2_drop"]
    assert all(step.figures.validation_r2 is not None for step in report.steps)


def test_the_certificate_compares_numbers(run):
    found = run[1].certificate
    assert found.passed
    assert found.r2_torch == pytest.approx(found.r2_onnx, abs=1e-3)
    assert (found.accuracy_onnx, found.accuracy_torch) == (None, None)
    assert found.agreement > 0.98


def test_the_report_reads_back_and_says_r2(run):
    path, report = run
    assert Report.model_validate_json((path / "report.json").read_text()) == report
    page, shown = html.render(report), " ".join(text.render(report, width=200).split())
    for said in (page, shown):
        assert "points of R²" in said
        assert "R² (test)" in said
    assert "R² against cost, step by step" in page
    assert "R² against the baseline:" in shown
    assert "accuracy" not in shown.replace("Accuracy", "").lower()


def _cli(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_evaluate_compare_and_profile(folder, run):
    data = f"npz:{folder / 'data.npz'}"
    assert re.search(r"r2 +0\.\d+ .*\n *rmse .*\n *mae ", _cli("evaluate", str(run[0]), "--data", data))
    compared = _cli("compare", str(run[0] / "baseline.onnx"), str(run[0]), "--data", data)
    assert re.search(r"r2 +0\.\d+ +0\.\d+ +-?0\.\d+ \(", compared)
    assert "MACs per sample" in _cli("profile", str(run[0]), "--data", data)


def test_studies_of_numbers(folder, run):
    data = f"npz:{folder / 'data.npz'}"
    assert "communication" in _cli("evaluate", str(run[0]), "--data", data, "--metrics", "communication")
    done = CliRunner().invoke(main, ["evaluate", str(run[0]), "--data", data, "--metrics", "membership"])
    assert done.exit_code == 2
    assert "membership: it is of classes, and the targets are real numbers" in done.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": "{max_accuracy_drop: 0.01}"}, "gates.max_accuracy_drop: the targets are real numbers, not classes"),
        ({"steps": "[distill.dist: {}]"}, "steps.0.distill.dist: it compares scores of classes"),
        ({"conditional": "[result_cache: {}]"}, "conditional.0.result_cache: it decides by classes"),
        ({"metrics": "[corruptions]"}, "metrics.0: corruptions"),
        ({"metrics": "[f1]"}, "metrics.0: f1 needs a model with at least 2 outputs a sample"),
    ],
)
def test_what_is_of_classes_is_refused(folder, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        compress(_recipe(folder, **changes), tmp_path / "run", progress=False)


def test_a_gate_of_numbers_on_classes(tmp_path):
    recipe = parse_recipe(
        "version: 1\nname: x\nmodel: {zoo: lenet5_digits}\ndata: {digits: true}\nsteps: []\ngates: {max_r2_drop: 0.1}\n"
    )
    with pytest.raises(RecipeError, match=r"gates\.max_r2_drop: the targets are classes: use max_accuracy_drop"):
        compress(recipe, tmp_path / "run", progress=False)


def test_a_file_that_computes_something_else_is_not_certified(tmp_path):
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 1), torch.randn(50, 3), torch.randn(50)
    export_onnx(model, (x[:2],), tmp_path / "model.onnx")
    certificate = certify(model, tmp_path / "model.onnx", [(x, y)], example_inputs=(x[:2],))
    assert (certificate.passed, certificate.agreement) == (True, 1.0)
    with torch.no_grad():
        model.bias += 0.06 * float(model(x).std())
    other = certify(model, tmp_path / "model.onnx", [(x, y)], example_inputs=(x[:2],))
    assert (other.passed, other.agreement) == (False, 0.0)
    with pytest.raises(ExportMismatch, match=r"agreement 0.00% of 50 samples, R² -?\d+\.\d+ % against -?\d+"):
        require(other)


def test_the_loss_does_not_spread_a_column_over_a_row():
    output, target = torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 3.0])
    assert target_loss(output, target).item() == 0
    with pytest.raises(ValueError, match="one number a sample as target, the model gives 2"):
        target_loss(torch.ones(2, 2), target)


def test_distillation_weighs_the_teacher_against_the_target():
    student, teacher, target = torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [2.0]]), torch.tensor([4.0, 4.0])
    found = [soft_loss(student, teacher, target, temperature=4.0, alpha=alpha).item() for alpha in (0.0, 0.25, 1.0)]
    assert found == pytest.approx([9.0, 0.25 * 1 + 0.75 * 9, 1.0])


def test_blocks_are_ranked_by_how_far_they_move_the_number():
    assert divergence(torch.tensor([[1.0], [5.0]]), torch.tensor([[2.0], [3.0]])).item() == 2.5
    assert divergence(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 3.0])).item() == 2.5


def test_few_bits_cost_a_number_more_than_many():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)), torch.randn(256, 6)
    quantized = StaticQuantization(weight_bits=8).apply(model, Context((x[:2],), calibration=(x, x[:, 0])))
    for few, many in sensitivities(quantized, (2, 4), [(x,)]).values():
        assert few > many > 0


def test_a_difference_that_is_not_shown_speaks_for_nobody(folder, run, tmp_path):
    data = f"npz:{folder / 'data.npz'}"
    model = nn.Sequential(nn.Linear(10, 1))
    with torch.no_grad():
        model[0].weight.zero_()
    export_onnx(model, (torch.zeros(2, 10),), tmp_path / "mean.onnx")
    base = str(run[0] / "baseline.onnx")
    assert "more accurate" in _cli("compare", base, str(tmp_path / "mean.onnx"), "--data", data).splitlines()[-1]
    assert "more accurate" not in _cli("compare", base, str(run[0]), "--data", data).splitlines()[-1]


def test_training_says_which_batch_does_not_fit():
    with pytest.raises(DataError, match="batch 1 of 1 in epoch 1 has one number a sample as target, the model gives 3"):
        fit(nn.Linear(2, 3), (torch.ones(4, 2), torch.arange(4.0)), epochs=1)
