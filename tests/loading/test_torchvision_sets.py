import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit.errors import DataError
from adaptkit.loading.data import load_data
from adaptkit.specs import DataSpec


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    for path in list(raw.iterdir()):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return tmp_path


def test_a_data_set_that_holds_arrays(fashion):
    spec = DataSpec(torchvision="FashionMNIST", root=".", validation=10, calibration=10)
    data = load_data(spec, 0, fashion)
    assert data.sample_shape == (1, 28, 28)
    assert (data.labels[0], data.num_outputs) == ("T-shirt/top", 10)
    assert (data.train.num_samples, data.test.num_samples) == (40, 20)
    assert torch.cat([y for _, y in data.test]).tolist() == [*range(10), *range(10)]


def test_a_size_that_is_asked_for(fashion):
    spec = DataSpec(torchvision="FashionMNIST", root=".", validation=10, calibration=10, size=14)
    data = load_data(spec, 0, fashion)
    assert data.sample_shape == (1, 14, 14)
    raw = np.frombuffer((fashion / "FashionMNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    first = Image.fromarray(raw.reshape(-1, 28, 28)[0]).resize((14, 14), Image.Resampling.BILINEAR)
    x, _ = next(iter(data.test))
    np.testing.assert_allclose(x[0, 0].numpy(), np.asarray(first) / np.float32(255))


def test_a_data_set_of_image_files_without_splits(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("RGB", (6, 6 + number % 2), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    spec = DataSpec(torchvision="ImageFolder", root=".", validation=2, calibration=2, test=4)
    with pytest.raises(
        DataError, match=r"ImageFolder, sample 1 has shape \(7, 6, 3\), the samples before \(6, 6, 3\): give"
    ):
        load_data(spec, 0, tmp_path)
    data = load_data(spec.model_copy(update={"size": 6}), 0, tmp_path)
    assert (data.sample_shape, data.labels, data.test.num_samples) == ((3, 6, 6), ("a", "b"), 4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DataSpec(torchvision="FashonMNIST"),
            r"torchvision has no data set 'FashonMNIST'; did you mean FashionMNIST\?",
        ),
        (
            DataSpec(torchvision="FashionMNIST", root="x"),
            r"FashionMNIST in .*x: Dataset not found.* data\.download: true",
        ),
        (DataSpec(torchvision="SVHN", root="x"), r"SVHN in .*x: "),
    ],
)
def test_data_sets_that_are_not_there(tmp_path, spec, message):
    with pytest.raises(DataError, match=message):
        load_data(spec, 0, tmp_path)
