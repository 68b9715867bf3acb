"""Opening an artifact and running it."""

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import ExportSpec

_MEAN, _STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2)).eval()


@pytest.fixture(scope="module", params=[False, True], ids=["outside", "in the graph"])
def folder(net, request, tmp_path_factory):
    """A run folder whose file normalizes, or not."""
    path, spec = tmp_path_factory.mktemp("run"), ExportSpec(normalize_in_graph=request.param)
    export_onnx(
        net,
        (torch.zeros(2, 3, 6, 6),),
        path / "model.onnx",
        spec=spec,
        labels=("no", "yes"),
        mean=_MEAN,
        std=_STD,
        recipe_sha256="12ab",
    )
    return path


def logits_of_pixels(net, images):
    pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return net((pixels - mean) / std).detach().numpy()


def test_classify_applies_the_recorded_normalization(net, folder):
    model = AdaptedModel.load(folder, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    expected = logits_of_pixels(net, images)
    np.testing.assert_allclose(model.classify(images).logits, expected, atol=1e-5)
    np.testing.assert_allclose(model.classify(images / 255).logits, expected, atol=1e-5)


def test_predict_takes_what_expected_input_gives(net, folder):
    model = AdaptedModel.load(folder / "model.onnx")
    x = torch.randn(3, 3, 6, 6)
    np.testing.assert_allclose(model.predict(model.expected_input(x.numpy())), net(x).detach().numpy(), atol=1e-5)


def test_notes_of_the_file(folder):
    model = AdaptedModel.load(folder)
    assert model.labels == ("no", "yes")
    assert (model.normalize.mean, model.normalize.std) == (_MEAN, _STD)
    assert model.recipe_sha256 == "12ab"


def test_file_without_our_notes(tmp_path):
    import onnx

    export_onnx(nn.Linear(2, 2), (torch.zeros(2, 2),), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "plain.onnx")
    model = AdaptedModel.load(tmp_path / "plain.onnx")
    assert model.labels == ()
    assert model.normalize.mean == ()
    assert model.predict(np.zeros((1, 2), np.float32)).shape == (1, 2)


def test_grey_images(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    export_onnx(net, (torch.zeros(2, 1, 2, 2),), tmp_path / "model.onnx")
    images = np.array([[[0, 51], [102, 255]]], np.uint8)
    expected = net(torch.from_numpy(images[:, None].astype(np.float32) / 255)).detach().numpy()
    np.testing.assert_allclose(AdaptedModel.load(tmp_path).classify(images).logits, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 5, 6), np.float32), r"the model takes N × 3 × 6 × 6; got shape \[1, 3, 5, 6\]"),
        (np.zeros((3, 6, 6), np.float32), r"the model takes N × 3 × 6 × 6; got shape \[3, 6, 6\]"),
        (np.zeros((1, 3, 6, 6)), "the model takes float32; got float64. Convert with"),
        (np.full((1, 3, 6, 6), np.nan, np.float32), "the input holds NaN or infinity"),
        (np.full((1, 3, 6, 6), np.inf, np.float32), "the input holds NaN or infinity"),
    ],
)
def test_inputs_that_do_not_fit(folder, x, message):
    with pytest.raises(DataError, match=message):
        AdaptedModel.load(folder).predict(x)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((6, 6), np.uint8), r"images are N × H × W × C.*got shape \[6, 6\]"),
        (np.full((1, 6, 6, 3), 200.0), r"float images are in \[0, 1\]; got 200 to 200. Divide by 255"),
        (np.full((1, 6, 6, 3), np.nan), r"float images are in \[0, 1\]; got nan to nan"),
        (np.zeros((1, 6, 6, 4), np.uint8), r"(the model takes 3 channels; got 4|got shape \[1, 4, 6, 6\])"),
    ],
)
def test_images_that_do_not_fit(folder, images, message):
    with pytest.raises(DataError, match=message):
        AdaptedModel.load(folder).classify(images)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx is not there: give an ONNX file"):
        AdaptedModel.load(tmp_path / "absent.onnx")
    with pytest.raises(
        ModelError,
        match=r"holds no model\.onnx and no manifest\.json: give an ONNX file or the folder of a finished run",
    ):
        AdaptedModel.load(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not ONNX at all")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open .*model\.onnx: .*Is it a whole ONNX file\?"):
        AdaptedModel.load(tmp_path)
