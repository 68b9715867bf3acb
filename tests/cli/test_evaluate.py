"""`adaptkit evaluate`, on a model whose answers are known."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import AdaptkitError
from adaptkit.export.onnx import export_onnx
from adaptkit.specs import DataSpec
from adaptkit_cli.artifact import artifact_path
from adaptkit_cli.data_spec import parse_data


class Brightness(nn.Module):
    """Class 1 where the mean of the normalized picture is above zero."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder whose model takes pixels minus 0.5, and data of which it gets three in four right."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "run").mkdir()
    path = folder / "run" / "model.onnx"
    export_onnx(Brightness().eval(), (torch.zeros(1, 1, 4, 4),), path, mean=(0.5,), std=(1.0,))
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
