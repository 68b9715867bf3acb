"""The main job on the digits: real files, real sessions, real kills."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import adaptkit
from adaptkit.errors import GateFailed, ModelError, RecipeError, RunFolderError
from adaptkit.loading.behind import network_behind
from adaptkit.loading.data import load_data
from adaptkit.metrics import measure
from adaptkit.pipeline import compress
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.recipe import Recipe, parse_recipe
from adaptkit.report import text
from adaptkit.report.schema import Report
from adaptkit.runtime.model import AdaptedModel
from adaptkit.study.base import Study
from adaptkit_zoo.digits import resnet_digits

SMALL = """
version: 1
name: small
model: {zoo: lenet5_digits}
data: {digits: true, validation: 100, calibration: 100}
steps:
  - prune.structured: {macs: 0.7, round_to: 1, min_channels: 2}
  - distill.logits: {epochs: 2, fit: {learning_rate: 0.01, checkpoint_seconds: 0}}
  - quantize.static: {calibration: 64}
profile: {batch_sizes: [1, 8], repeats: 5, warmup: 2}
metrics: [accuracy, top5, f1, ece, corruptions: {samples: 90, severities: [5]}, robust_accuracy: {steps: 3}]
"""
FILES = {
    "baseline.onnx", "certificate.json", "model.onnx", "model.safetensors", "recipe.lock.yaml", "report.html",
    "report.json", "steps", "structure.json",
}  # fmt: skip
KINDS = ("", ".clean", ".gaussian_noise", ".gaussian_blur", ".jpeg")
TIMED = {"latency_ms", "speedup", "peak_memory_bytes", "seconds", "created", "latency_us_before", "latency_us_after"}


def _recipe(text: str = SMALL, **changes: str) -> Recipe:
    return parse_recipe(text, overrides=[f"{key}={value}" for key, value in changes.items()])


def _untimed(report: object) -> object:
    """Drop what a clock or another process decides; layer notes explain timings."""
    if isinstance(report, dict):
        layers = "latency_us_before" in report
        return {k: _untimed(v) for k, v in report.items() if k not in TIMED and not (layers and k == "note")}
    return [_untimed(item) for item in report] if isinstance(report, list) else report


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("run") / "small"
    return folder, compress(_recipe(), folder, progress=False)


def test_the_folder_holds_everything_and_nothing_else(run):
    folder, _ = run
    assert {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} == FILES
    assert [entry.name for entry in sorted((folder / "steps").iterdir())] == [
        "00-baseline", "01-prune.structured", "02-distill.logits", "03-quantize.static",
    ]  # fmt: skip


def test_the_report_is_what_stands_in_the_folder(run):
    folder, report = run
    assert Report.model_validate_json((folder / "report.json").read_text()) == report
    assert report.certificate.passed
    assert report.final.bytes == (folder / "model.onnx").stat().st_size
    assert report.final.macs < report.baseline.macs
    assert set(report.final.latency_ms) == {"t1_b1", "t1_b8"}
    for found in (report.baseline, report.final):
        assert sum(point.samples for point in found.calibration) == report.certificate.samples
    assert [step.name for step in report.steps] == ["prune.structured", "distill.logits", "quantize.static"]


def test_metrics_are_of_the_files_over_the_test_split(run):
    folder, report = run
    test = load_data(_recipe().data, 0).test
    for figures, name in ((report.baseline, "baseline.onnx"), (report.final, "model.onnx")):
        model = AdaptedModel.load(folder / name)
        outputs = [(model.predict(model.expected_input(x.numpy())), y.numpy()) for x, y in test]
        given, target = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        wanted = measure(["accuracy", "top5", "f1", "ece"], given, target)
        assert {key: figures.metrics[key].value for key in wanted} == pytest.approx(
            {key: each.value for key, each in wanted.items()}
        )
        studied = figures.metrics.keys() - wanted.keys()
        assert studied == {*(f"corruptions{kind}" for kind in KINDS), "robust_accuracy", "robust_accuracy.clean"}
        assert figures.metrics["corruptions"].samples == 90
        assert figures.metrics["robust_accuracy.clean"].value == pytest.approx(figures.accuracy)
        assert 0 < figures.metrics["robust_accuracy"].value < figures.metrics["robust_accuracy.clean"].value
        assert figures.metrics["accuracy"].value == pytest.approx(figures.accuracy)
        assert figures.metrics["ece"].samples == test.num_samples
    assert report.certificate.metrics == {key: report.final.metrics[key] for key in wanted}
    assert [step.figures.metrics for step in report.steps] == [{}, {}, {}]
    page = (folder / "report.html").read_text()
    assert "f1 (test)" in page
    assert "Metrics with their 95 % intervals" in page


def test_the_accuracy_of_the_result_is_held_against_that_of_the_baseline(run):
    folder, report = run
    test = load_data(_recipe().data, 0).test
    hits = [
        [
            bool(hit)
            for x, y in test
            for hit in AdaptedModel.load(folder / file).predict(x.numpy()).argmax(1) == y.numpy()
        ]
        for file in ("baseline.onnx", "model.onnx")
    ]
    pair = report.against_baseline
    assert pair.difference == pytest.approx(report.final.accuracy - report.baseline.accuracy)
    assert pair.lost == sum(one and not other for one, other in zip(*hits, strict=True))
    assert pair.gained == sum(other and not one for one, other in zip(*hits, strict=True))
    shown = f"{pair.lost} samples lost, {pair.gained} gained, McNemar"
    assert shown in " ".join(text.render(report).split())
    assert shown in (folder / "report.html").read_text().replace("&#39;", "'")


@pytest.mark.parametrize("file", ["", "model.onnx", "baseline.onnx"])
def test_the_network_behind_a_file_is_found_in_its_folder(run, file):
    folder, _ = run
    network = network_behind(folder / file, 10)
    test = load_data(_recipe().data, 0).test
    x, _ = next(iter(test))
    served = AdaptedModel.load(folder / (file or "model.onnx")).predict(x.numpy())
    with torch.no_grad():
        assert (network(x).argmax(1).numpy() == served.argmax(1)).mean() > 0.97
    assert isinstance(network, QuantizedModel) == (file != "baseline.onnx")


def test_a_file_from_elsewhere_has_no_network_behind_it(run, tmp_path):
    folder, _ = run
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (folder / "other.onnx").write_bytes((folder / "model.onnx").read_bytes())
    for path in (tmp_path / "model.onnx", tmp_path, folder / "other.onnx"):
        with pytest.raises(ModelError, match="an ONNX file has no gradients"):
            network_behind(path)
    (folder / "other.onnx").unlink()


def test_metrics_that_do_not_fit_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "problem", lambda _, shape: f"sees {shape}")
    recipe = _recipe(metrics="[f1, rmse, top10, corruptions]")
    with pytest.raises(RecipeError) as caught:
        compress(recipe, tmp_path / "run", progress=False)
    assert str(caught.value) == (
        "metrics.1: rmse needs a model with exactly 1 output a sample; this one has 10\n"
        "metrics.2: top10 needs a model with at least 11 outputs a sample; this one has 10\n"
        "metrics.3: corruptions sees (1, 8, 8)"
    )
    assert not (tmp_path / "run" / "steps").exists()


def test_every_saving_is_of_the_exported_file(run):
    folder, report = run
    for index, step in enumerate(report.steps, start=1):
        file = folder / "steps" / f"{index:02d}-{step.name}" / "model.onnx"
        assert step.figures.bytes == file.stat().st_size


def test_the_result_loads_back_onto_the_unmodified_class(run):
    from adaptkit_zoo.digits import lenet5_digits

    folder, _ = run
    model = adaptkit.load(lenet5_digits, folder)
    x = torch.rand(4, 1, 8, 8)
    expected = AdaptedModel.load(folder).predict(x.numpy())
    torch.testing.assert_close(model(x), torch.from_numpy(expected), atol=0.1, rtol=0.05)


@pytest.mark.slow
def test_reproduced_from_the_lock(run, tmp_path):
    from adaptkit.recipe import read_recipe

    folder, report = run
    again = compress(read_recipe(folder / "recipe.lock.yaml"), tmp_path / "again", progress=False)
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert _untimed(again.model_dump()) == _untimed(report.model_dump())


def test_a_lock_of_other_weights_is_refused(run, tmp_path):
    folder, _ = run
    lock = (folder / "recipe.lock.yaml").read_text()
    key = parse_recipe(lock).lock["weights_sha256"]
    with pytest.raises(RunFolderError, match="the weights are not what the lock says"):
        compress(parse_recipe(lock.replace(key, "f" * 64)), tmp_path / "other", progress=False)


def test_a_second_run_into_the_folder_is_refused(run):
    folder, _ = run
    with pytest.raises(RunFolderError, match="holds a finished run"):
        compress(_recipe(), folder, progress=False)


def test_resuming_with_another_recipe_is_refused(run):
    folder, _ = run
    with pytest.raises(RunFolderError, match="the recipe is not what the lock says"):
        compress(_recipe(**{"steps.0.macs": "0.8"}), folder, resume=True, progress=False)


def test_resuming_a_finished_run_gives_its_report(run):
    folder, report = run
    assert compress(_recipe(), folder, resume=True, progress=False) == report


def test_a_failed_gate_leaves_everything_written(tmp_path):
    with pytest.raises(GateFailed, match=r"max_bytes is .* allowed is at most 10") as failed:
        compress(_recipe(**{"gates.max_bytes": "10"}), tmp_path / "run", progress=False)
    assert {entry.name for entry in (tmp_path / "run").iterdir()} >= FILES
    assert failed.value.report.gates[0].passed is False


def test_steps_are_checked_before_any_work(tmp_path):
    recipe = _recipe(**{"steps.0.targets": "[no_such_layer]"})
    with pytest.raises(RecipeError, match=r"steps\.0\.prune\.structured.*no_such_layer"):
        compress(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "steps").exists()


def test_no_steps_is_an_export_with_a_certificate(tmp_path):
    report = compress(_recipe(steps="[]"), tmp_path / "run", progress=False)
    assert report.final.accuracy == report.baseline.accuracy
    assert report.certificate.agreement == 1.0


def _start(recipe: Path, folder: Path, *extra: str) -> subprocess.Popen[bytes]:
    adaptkit_command = str(Path(sys.executable).parent / "adaptkit")
    command = [adaptkit_command, "compress", str(recipe), "--output", str(folder), "-q", *extra]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, error = process.communicate()
    return process.returncode, error.decode()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [7, 8])
def test_killed_again_and_again_at_random_moments_it_ends_in_the_same_bytes(tmp_path, seed):
    """Three kills in each of two runs: the resumed run is killed as well."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    started = time.monotonic()
    assert _ended(_start(recipe, tmp_path / "whole")) == (0, "")
    length = time.monotonic() - started
    whole = (tmp_path / "whole" / "model.onnx").read_bytes()
    report = _untimed(json.loads((tmp_path / "whole" / "report.json").read_text()))
    moments = random.Random(seed)
    for folder in (tmp_path / "first", tmp_path / "second"):
        for resume in ([], ["--resume"], ["--resume"]):
            process = _start(recipe, folder, *resume)
            time.sleep(moments.uniform(0.3, 0.8) * length)
            process.send_signal(signal.SIGKILL)
            _ended(process)
        assert _ended(_start(recipe, folder, "--resume")) == (0, "")
        assert (folder / "model.onnx").read_bytes() == whole
        assert _untimed(json.loads((folder / "report.json").read_text())) == report


def test_another_class_is_refused(run):
    folder, _ = run
    with pytest.raises(adaptkit.ModelError, match="another model"):
        adaptkit.load(resnet_digits, folder)
