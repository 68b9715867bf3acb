"""`adaptkit evaluate`, on a model whose answers are known."""

import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import AdaptkitError
from adaptkit.export.onnx import export_onnx
from adaptkit.metrics.transfer import leep
from adaptkit.specs import DataSpec
from adaptkit_cli.artifact import artifact_path
from adaptkit_cli.data_spec import parse_data


class Brightness(nn.Module):
    """Class 1 where the mean of the normalized picture is above zero."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


class Mean(nn.Module):
    """The mean of the normalized picture: one number a sample."""

    def forward(self, x):
        return x.mean(dim=(1, 2, 3))[:, None]


class Broken(Brightness):
    """NaN for light pictures."""

    def forward(self, x):
        return torch.log(-super().forward(x)[:, 1:]).repeat(1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder whose model takes pixels minus 0.5, and data of which it gets three in four right."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "run").mkdir()
    path = folder / "run" / "model.onnx"
    export_onnx(Brightness().eval(), (torch.zeros(1, 1, 4, 4),), path, mean=(0.5,), std=(1.0,))
    for name, model in (("mean", Mean()), ("broken", Broken())):
        export_onnx(model.eval(), (torch.zeros(2, 1, 4, 4),), folder / f"{name}.onnx", mean=(0.5,), std=(1.0,))
    dark, light = np.full((4, 4), 25, np.uint8), np.full((4, 4), 230, np.uint8)
    x = np.stack([dark, light, dark, light])
    train = {"x_train": np.concatenate([x] * 10), "y_train": np.tile([0, 1, 0, 1], 10)}
    np.savez(folder / "d.npz", x_test=x, y_test=np.array([0, 1, 0, 0]), **train)
    return folder


@pytest.fixture
def files(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("files")
def test_the_normalization_is_the_one_the_file_was_made_with(run):
    # Without it every pixel is above zero, and half the answers are right by chance.
    result = run("evaluate", "run", "--data", "npz:d.npz")
    assert (result.exit_code, result.stdout) == (0, "run/model.onnx: 75.00 % of 4 test samples right\n")
    found = json.loads(run("evaluate", "run/model.onnx", "--data", "npz:d.npz", "--json").stdout)
    assert found == {"artifact": "run/model.onnx", "data": "npz:d.npz", "accuracy": 0.75, "samples": 4}
    assert run("evaluate", "run", "--data", "npz:d.npz", "-q").stdout == ""


@pytest.mark.usefixtures("files")
def test_metrics_stand_below_with_their_intervals(run):
    result = run("evaluate", "run", "--data", "npz:d.npz", "--metrics", "accuracy, f1,ece")
    assert (result.exit_code, result.stderr) == (0, "")
    first, heading, *rows = result.stdout.splitlines()
    assert first == "run/model.onnx: 75.00 % of 4 test samples right"
    assert re.split(r"\s{2,}", heading.strip()) == ["value", "95 % interval", "how"]
    sure = 1 / (1 + math.exp(-2 * (230 / 255 - 0.5)))
    shown = [re.split(r"\s{2,}", row) for row in rows]
    assert shown[0] == ["accuracy", "0.7500", "0.1941 to 0.9937", "exact (Clopper-Pearson)"]
    assert [row[:2] for row in shown[1:]] == [["f1", "0.7333"], ["ece", f"{0.75 - sure:.5f}"]]
    assert run("evaluate", "run", "--data", "npz:d.npz", "--metrics", "f1", "-q").stdout == ""


@pytest.mark.usefixtures("files")
def test_metrics_as_json(run):
    found = json.loads(run("evaluate", "run", "--data", "npz:d.npz", "--metrics", "f1,ece", "--json").stdout)
    assert (found["accuracy"], found["samples"], list(found["metrics"])) == (0.75, 4, ["f1", "ece"])
    f1 = found["metrics"]["f1"]
    assert (f1["samples"], f1["higher_is_better"], f1["problem"], f1["bins"]) == (4, True, None, [])
    assert f1["value"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert f1["low"] <= f1["value"] <= f1["high"]
    (full,) = [each for each in found["metrics"]["ece"]["bins"] if each["samples"]]
    assert (full["samples"], full["accuracy"], len(found["metrics"]["ece"]["bins"])) == (4, 0.75, 15)


@pytest.mark.usefixtures("files")
def test_a_model_that_gives_numbers_has_metrics_of_numbers_alone(run):
    given = ("evaluate", "mean.onnx", "--data", "npz:d.npz")
    found = json.loads(run(*given, "--metrics", "mae,max_error", "--json").stdout)
    assert (found["accuracy"], found["samples"]) == (None, 4)
    dark, light = 25 / 255 - 0.5, 230 / 255 - 0.5
    errors = [-dark, 1 - light, -dark, light]
    assert found["metrics"]["mae"]["value"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["metrics"]["max_error"]["value"] == pytest.approx(1 - light, rel=1e-5)
    text = run(*given, "--metrics", "max_error").stdout
    assert text.startswith("mean.onnx: 4 test samples\n")
    assert "≥ 0.5980  at least: no sample bounds a maximum from above" in text
    alone = run(*given)
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "accuracy is of classes, and an answer of this model has the shape [1]" in alone.stderr


@pytest.mark.parametrize(
    ("artifact", "names", "message"),
    [
        (
            "run",
            "accuracy,acuracy",
            "no metric is called 'acuracy'; did you mean 'accuracy'? There are accuracy, top2,",
        ),
        ("nothing", "acuracy", "no metric is called 'acuracy'"),
        ("run", "f1: {k: 3}", "f1: has no settings; write f1 alone"),
        ("run", "f1: [", "not YAML: "),
        ("run", "corruptions: {kinds: [fog]}", "corruptions.kinds.0: expected 'gaussian_noise', 'gaussian_blur'"),
        ("run", "robust_accuracy", "robust_accuracy: an ONNX file has no gradients, and run/model.onnx has no PyTorch"),
        ("run", "communication: {cut: 9}", "communication: the model has 1 stages: the cut is from 0 to 1; got 9"),
        ("run", "top5", "top5: needs a model with at least 6 outputs a sample; this one has 2"),
        ("run", "rmse", "rmse: needs a model with exactly 1 output a sample; this one has 2"),
        ("mean.onnx", "f1", "f1: needs a model with at least 2 outputs a sample; this one has 1"),
        ("broken.onnx", "f1", "the model answers with NaN or infinity"),
    ],
)
@pytest.mark.usefixtures("files")
def test_metrics_that_do_not_fit(run, artifact, names, message):
    result = run("evaluate", artifact, "--data", "npz:d.npz", "--metrics", names)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert len(result.stderr.splitlines()) == 1
    as_json = run("evaluate", artifact, "--data", "npz:d.npz", "--metrics", names, "--json")
    assert json.loads(as_json.stdout)["error"].startswith(message)


@pytest.mark.usefixtures("files")
def test_studies_stand_below_the_metrics(run):
    names = "f1,communication,corruptions: {kinds: [jpeg], severities: [1]}"
    found = json.loads(run("evaluate", "run", "--data", "npz:d.npz", "--metrics", names, "--json").stdout)
    assert list(found["metrics"]) == [
        "f1", "communication", "communication.up", "communication.down",
        "corruptions", "corruptions.clean", "corruptions.jpeg",
    ]  # fmt: skip
    assert found["metrics"]["communication.up"]["value"] == 64
    assert found["metrics"]["corruptions.jpeg"]["value"] == found["accuracy"] == 0.75


@pytest.mark.usefixtures("files")
def test_leep_is_of_another_task_for_which_a_model_has_no_accuracy(run):
    found = json.loads(run("evaluate", "run", "--data", "npz:d.npz", "--metrics", "leep", "--json").stdout)
    assert (found["accuracy"], found["samples"]) == (None, 4)
    sure = 1 / (1 + math.exp(-2 * (230 / 255 - 0.5))), 1 / (1 + math.exp(2 * (25 / 255 - 0.5)))
    theta = np.array([[sure[1], 1 - sure[1]], [1 - sure[0], sure[0]]] * 2)
    assert found["metrics"]["leep"]["value"] == pytest.approx(leep(theta, [0, 1, 0, 0]).value, abs=1e-5)
    both = json.loads(run("evaluate", "run", "--data", "npz:d.npz", "--metrics", "leep,f1", "--json").stdout)
    assert both["accuracy"] == 0.75


@pytest.mark.usefixtures("files")
def test_a_broken_model_gets_no_accuracy(run):
    result = run("evaluate", "broken.onnx", "--data", "npz:d.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the model answers with NaN or infinity" in result.stderr


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        ("nothing", "no such file or folder: nothing"),
        (".", ". holds no model.onnx and no manifest.json: give an ONNX file or a finished run folder"),
        ("d.npz", "d.npz is not an .onnx file: give an ONNX file or a finished run folder"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_is_no_artifact(run, artifact, message):
    result = run("evaluate", artifact, "--data", "digits")
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")


def test_an_onnx_file_or_a_run_folder(tmp_path):
    (tmp_path / "model.onnx").touch()
    file = tmp_path / "model.onnx"
    assert artifact_path(str(tmp_path)) == artifact_path(str(file)) == file
    (tmp_path / "manifest.json").touch()
    assert artifact_path(str(tmp_path)) == tmp_path


def test_data_by_word(tmp_path, recipe):
    (tmp_path / "d.npz").touch()
    assert parse_data("digits") == (DataSpec(digits=True, calibration=0.1), 0)
    assert parse_data("npz:d.npz") == (DataSpec(npz=str(tmp_path / "d.npz"), calibration=0.1), 0)
    assert parse_data(f"imagefolder:{tmp_path}") == (DataSpec(imagefolder=str(tmp_path), calibration=0.1), 0)
    assert parse_data("torchvision:FashionMNIST") == (DataSpec(torchvision="FashionMNIST", calibration=0.1), 0)
    (tmp_path / recipe).write_text((tmp_path / recipe).read_text() + "seed: 7\n")
    assert parse_data(recipe) == (DataSpec(digits=True), 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "--data digit is neither a file nor one of: digits, npz:FILE, imagefolder:PATH, torchvision:NAME,"),
        ("npz:", "--data npz: is neither a file nor one of"),
        ("npz:nope.npz", "no such file or folder: /.*nope.npz"),
        ("imagefolder:nope", "no such file or folder: /.*nope"),
    ],
)
def test_data_that_is_not_there(text, message):
    with pytest.raises(AdaptkitError, match=message):
        parse_data(text)
