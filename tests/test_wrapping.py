"""The main job with a conditional entry: real training, real files, real kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from adaptkit import conditionals
from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.errors import ExportMismatch, RecipeError, TargetError
from adaptkit.loading.data import load_data
from adaptkit.pipeline import compress
from adaptkit.recipe import parse_recipe, read_recipe
from adaptkit.report import html, text
from adaptkit.report.schema import Certificate, Report
from adaptkit.runtime import AdaptedModel

SMALL = """
version: 1
name: small
model: {zoo: resnet_digits}
data: {digits: true, validation: 450, calibration: 100}
steps: []
conditional:
  - early_exit:
      exits: 1
      head_width: 8
      training: heads
      epochs: 4
      fit: {learning_rate: 0.05, checkpoint_seconds: 0}
      max_accuracy_drop: 0.04
profile: {batch_sizes: [1, 8], repeats: 5, seconds: 0.1}
metrics: [accuracy, mcc]
"""
FILES = {"baseline.onnx", "certificate.json", "recipe.lock.yaml", "report.html", "report.json", "steps"}


class Again(Conditional):
    """Put the same artifact around itself, and say so."""

    name: ClassVar[str] = "again"
    needs: ClassVar[frozenset[str]] = frozenset({"train"})
    wrong: bool = False

    def wrap(self, inner, original, context):
        assert original is not getattr(inner, "network", None)
        context.notes.append(f"around {', '.join(inner.paths)}")
        return Wrong(inner) if self.wrong else inner


class Wrong:
    """An artifact whose PyTorch networks say something else than its files."""

    def __init__(self, inner: Artifact) -> None:
        self.inner, self.paths, self.parts, self.write = inner, inner.paths, inner.parts, inner.write

    def answers(self, x):
        return [None if answer is None else -answer for answer in self.inner.answers(x)]


class Frames(Again):
    """Need what no recipe has."""

    name: ClassVar[str] = "frames"
    needs: ClassVar[frozenset[str]] = frozenset({"frames"})


@pytest.fixture
def kinds(monkeypatch):
    """Conditional kinds that do nothing."""
    table = conditionals.CONDITIONALS | {"again": Again, "frames": Frames}
    monkeypatch.setattr(conditionals, "CONDITIONALS", table)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("run") / "small"
    return folder, compress(parse_recipe(SMALL), folder, progress=False)


def _names(folder):
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def test_the_folder_is_the_artifact_and_holds_nothing_of_the_plain_model(run):
    folder, _ = run
    assert _names(folder) == FILES | {"stages", "manifest.json"}
    step = folder / "steps" / "01-early_exit"
    assert _names(step) == {"artifact", "done.json"}
    for file in (step / "artifact").rglob("*.*"):
        assert file.read_bytes() == (folder / file.relative_to(step / "artifact")).read_bytes()


def test_the_artifact_knows_its_labels_and_its_recipe(run):
    folder, _ = run
    model = AdaptedModel.load(folder)
    assert model.labels == tuple("0123456789")
    assert model.recipe_sha256 == read_recipe(folder / "recipe.lock.yaml").lock["recipe_sha256"]


def test_metrics_are_of_all_ways_together(run):
    _, report = run
    assert list(report.baseline.metrics) == list(report.final.metrics) == ["accuracy", "mcc"]
    assert report.final.metrics == report.certificate.metrics
    assert report.final.metrics["accuracy"].value == pytest.approx(report.final.accuracy)
    assert report.baseline.metrics["accuracy"].value == pytest.approx(report.baseline.accuracy)
    assert report.final.metrics["mcc"].low < report.final.metrics["mcc"].value
    assert report.against_baseline.difference == pytest.approx(report.final.accuracy - report.baseline.accuracy)


def test_figures_are_of_the_test_split_a_sample_at_a_time(run):
    folder, report = run
    recipe = parse_recipe(SMALL)
    model, test = AdaptedModel.load(folder), load_data(recipe.data, recipe.seed).test
    taken, right = np.zeros(len(model.paths), int), 0
    for x, y in test.with_batch_size(1):
        result = model(x.numpy())
        taken[result.path[0]] += 1
        right += int(result.logits.argmax() == int(y))
    paths = report.final.paths
    assert report.final.accuracy == report.certificate.accuracy_onnx == right / test.num_samples
    assert [way.share for way in paths.ways] == (taken / test.num_samples).tolist()
    assert sum(way.share * (way.accuracy or 0) for way in paths.ways) == pytest.approx(report.final.accuracy)
    assert report.final.accuracy == report.steps[-1].figures.accuracy
    assert set(report.final.latency_ms) == set(report.baseline.latency_ms) == {"t1_b1", "t1_b8"}
    for key, ratio in report.final.speedup.items():
        means = report.baseline.latency_ms[key].mean, report.final.latency_ms[key].mean
        assert ratio.median == pytest.approx(means[0] / means[1])
    assert report.final.macs < report.baseline.macs * (1 if taken[0] else 2)
    assert report.final.bytes == sum(file.stat().st_size for file in (folder / "stages").iterdir()) + len(
        (folder / "manifest.json").read_bytes()
    )


def test_the_certificate_is_way_by_way(run):
    folder, report = run
    certificate = Certificate.model_validate_json((folder / "certificate.json").read_text())
    assert certificate == report.certificate
    assert certificate.passed
    assert certificate.not_compared == 0
    assert sum(path.samples for path in certificate.paths) == certificate.samples == 359
    assert all(path.agreement == 1.0 for path in certificate.paths if path.samples)
    assert certificate.paths[-1].accuracy_of_all == report.baseline.accuracy


def test_the_reports_show_the_ways(run):
    folder, report = run
    shown, page = text.render(report, folder, width=120), html.render(report)
    assert "ways through the model, over 359 test samples (1 thread, batch 1)" in shown
    assert "latency mean, 1 thread, batch 1" in shown
    assert "MACs per sample, expected" in shown
    assert f"  model   {folder}\n" in shown
    assert "Ways through the model" in page
    for way in report.final.paths.ways:
        assert f"  {way.name}  " in shown
        assert f"{way.name}: {100 * way.share:.2f} %" in page


@pytest.mark.slow
def test_reproduced_from_the_lock_file(run, tmp_path):
    folder, _ = run
    again = compress(read_recipe(folder / "recipe.lock.yaml"), tmp_path / "again", progress=False)
    assert again.certificate.passed
    for name in ("0.onnx", "1.onnx"):
        assert (tmp_path / "again" / "stages" / name).read_bytes() == (folder / "stages" / name).read_bytes()


def test_one_file_and_one_around_the_other(kinds, tmp_path):
    recipe = parse_recipe(
        SMALL + "export: {normalize_in_graph: true}\n",
        overrides=["conditional.0.single_file=true", "data.normalize={mean: [0.3], std: [0.4]}"],
    )
    recipe = recipe.model_copy(update={"conditional": (*recipe.conditional, Again())})
    report = compress(recipe, tmp_path / "run", progress=False)
    assert _names(tmp_path / "run") == FILES | {"model.onnx"}
    assert [step.name for step in report.steps] == ["early_exit", "again"]
    assert report.steps[1].notes == ["around exit 0, exit 1"]
    assert report.steps[0].figures.accuracy == report.steps[1].figures.accuracy == report.final.accuracy
    assert AdaptedModel.load(tmp_path / "run").normalize.in_graph
    assert report.certificate.passed


def test_a_finished_inner_entry_does_not_train_twice(kinds, tmp_path, monkeypatch):
    recipe = parse_recipe(SMALL)
    recipe = recipe.model_copy(update={"conditional": (*recipe.conditional, Again())})

    def killed(self, inner, original, context):
        raise KeyboardInterrupt

    monkeypatch.setattr(Again, "wrap", killed)
    with pytest.raises(KeyboardInterrupt):
        compress(recipe, tmp_path / "run", progress=False)
    first = tmp_path / "run" / "steps" / "01-early_exit"
    checkpoint = first / "work" / "fit.pt"
    before = checkpoint.stat().st_mtime_ns
    seen = []

    def wrap(self, inner, original, context):
        seen.append(checkpoint.stat().st_mtime_ns)
        return inner

    monkeypatch.setattr(Again, "wrap", wrap)
    assert compress(recipe, tmp_path / "run", resume=True, progress=False).certificate.passed
    assert seen == [before]
    assert not (first / "work").exists()


def test_answers_that_differ_from_pytorch_are_refused_with_the_certificate_written(kinds, tmp_path):
    recipe = parse_recipe(SMALL).model_copy(update={"conditional": (Again(wrong=True),)})
    with pytest.raises(ExportMismatch, match=r"does not answer what its PyTorch networks answer, worst on whole"):
        compress(recipe, tmp_path / "run", progress=False)
    certificate = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert (certificate["passed"], certificate["agreement"]) == (False, 0.0)


def test_a_bound_that_cannot_be_met_leaves_what_there_is_and_says_how_far_it_got(tmp_path):
    recipe = parse_recipe(SMALL, overrides=["conditional.0.max_accuracy_drop=0.0001"])
    with pytest.raises(TargetError, match=r"at most 0\.01 points with 95 % confidence: on 315 validation samples") as e:
        compress(recipe, tmp_path / "run", progress=False)
    assert e.value.exit_code == 2
    assert _names(tmp_path / "run") == {"baseline.onnx", "recipe.lock.yaml", "steps"}
    assert (tmp_path / "run" / "steps" / "01-early_exit" / "work" / "fit.pt").is_file()


@pytest.mark.parametrize(
    ("entries", "steps", "message"),
    [
        ("[again, early_exit]", "[]", r"conditional\.1: early_exit takes a network apart: put it first"),
        ("[early_exit]", "[quantize.static]", "around what quantize.static leaves: exits train in float: say with"),
    ],
)
def test_recipes_that_cannot_work_are_refused_when_read(kinds, entries, steps, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(SMALL, overrides=[f"conditional={entries}", f"steps={steps}"])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[frames]", r"conditional\.0\.frames: needs frames, which a recipe cannot give"),
        ("[{early_exit: {exits: [stage3]}}]", r"early_exit: exits: 'stage3' is no module of the model; did you mean"),
    ],
)
def test_entries_are_checked_before_any_work(kinds, tmp_path, entries, message):
    with pytest.raises(RecipeError, match=message):
        compress(parse_recipe(SMALL, overrides=[f"conditional={entries}"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "steps").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_again_and_again_it_ends_in_the_same_stages(run, tmp_path):
    """Thresholds follow measured times; the networks do not."""
    folder, _ = run
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    command = [
        str(Path(sys.executable).parent / "adaptkit"),
        "compress",
        str(recipe),
        "--output",
        str(tmp_path / "run"),
    ]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    checkpoint = tmp_path / "run" / "steps" / "01-early_exit" / "work" / "fit.pt"
    for moment in (0.2, 1.0, 3.0):
        process = subprocess.Popen(
            [*command, "-q", "--resume"], env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([*command, "-q", "--resume"], env=one_thread, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("0.onnx", "1.onnx"):
        assert (tmp_path / "run" / "stages" / name).read_bytes() == (folder / "stages" / name).read_bytes()
