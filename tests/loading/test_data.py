import sys

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import DataError
from adaptkit.loading.arrays import from_arrays
from adaptkit.loading.data import check_fits, load_data
from adaptkit.specs import DataSpec


def images(count: int, channels: int = 3, side: int = 8, seed: int = 0) -> np.ndarray:
    """Images that are all different: the first pixels hold their number."""
    x = np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    x[:, 0, 0, 0], x[:, 0, 1, 0], x[:, 0, 2, 0] = np.arange(count) % 256, np.arange(count) // 256, seed
    return x


def write_npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return DataSpec(npz="data.npz", validation=10, calibration=10)


def fingerprints(batches) -> set[bytes]:
    return {image.numpy().tobytes() for x, _ in batches for image in x}


def test_digits_at_half_their_size_are_averaged():
    full, small = (torch.cat([x for x, _ in load_data(DataSpec(digits=True, size=n), seed=0).test]) for n in (None, 4))
    assert small.shape == (359, 1, 4, 4)
    near = torch.tensor([1.0, 3, 3, 1]) / 8  # of each place, a tent over the four nearest
    inner = torch.einsum("nhw,h,w->n", full[:, 0, 1:5, 3:7], near, near)
    assert torch.allclose(small[:, 0, 1, 2], inner, atol=1e-5)


def test_digits():
    data = load_data(DataSpec(digits=True, batch_size=64), seed=0)
    x, y = next(iter(data.test))
    assert x.shape == (64, 1, 8, 8)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert 0 <= float(x.min()) < float(x.max()) == 1
    assert data.labels == tuple("0123456789")
    assert (data.mean, data.std, data.num_outputs) == (None, None, 10)
    sizes = [split.num_samples for split in (data.train, data.validation, data.calibration, data.test)]
    assert sizes == [782, 144, 512, 359]


def test_splits_are_disjoint_fixed_and_stratified(tmp_path):
    spec = write_npz(tmp_path, x=images(400), y=np.arange(400) % 4)
    data, again, other = (load_data(spec, seed, tmp_path) for seed in (0, 0, 1))
    parts = [fingerprints(split) for split in (data.train, data.validation, data.calibration, data.test)]
    assert [len(part) for part in parts] == [300, 10, 10, 80]
    assert len(set.union(*parts)) == 400
    assert fingerprints(again.test) == parts[3] != fingerprints(other.test)
    assert np.bincount(torch.cat([y for _, y in data.test])).tolist() == [20] * 4
    assert sorted(np.bincount(torch.cat([y for _, y in data.validation])).tolist()) == [2, 2, 3, 3]
    assert data.sha256 == other.sha256


def test_the_test_split_does_not_move_with_the_other_sizes(tmp_path):
    spec = write_npz(tmp_path, x=images(400), y=np.arange(400) % 4)
    data = load_data(spec, 0, tmp_path)
    other = load_data(spec.model_copy(update={"validation": 0.3, "calibration": 50}), 0, tmp_path)
    assert fingerprints(data.test) == fingerprints(other.test)


def test_a_test_split_of_the_source_stays_what_it_is(tmp_path):
    test = images(30, seed=1)
    spec = write_npz(
        tmp_path,
        x_train=images(100),
        y_train=np.arange(100) % 2,
        x_test=test,
        y_test=np.arange(30) % 2,
        labels=["no", "yes"],
    )
    data = load_data(spec, 0, tmp_path)
    x = torch.cat([x for x, _ in data.test])
    np.testing.assert_allclose(x.numpy(), test.transpose(0, 3, 1, 2) / np.float32(255))
    assert data.train.num_samples == 80
    assert data.labels == ("no", "yes")


def test_only_train_is_shuffled_and_augmented(tmp_path):
    spec = write_npz(tmp_path, x=images(100), y=np.arange(100) % 2)
    spec = spec.model_copy(update={"augment": ("pad_crop", "flip"), "normalize": "imagenet", "batch_size": 32})
    data = load_data(spec, 3, tmp_path)
    assert data.train.shuffle
    assert data.train.augment == ("pad_crop", "flip")
    for split in (data.validation, data.calibration, data.test):
        assert not split.shuffle
        assert split.augment == ()
        assert split.mean == data.mean == (0.485, 0.456, 0.406)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(split.epoch(0), split.epoch(1), strict=True))


def test_a_function_beside_the_recipe(tmp_path):
    (tmp_path / "my_numbers.py").write_text(
        "import numpy as np\n"
        "def build(count):\n"
        "    return {'x': np.random.default_rng(0).random((count, 4)), 'y': np.arange(count) % 2}\n"
    )
    spec = DataSpec(python="my_numbers:build", args={"count": 60}, validation=5, calibration=5)
    data = load_data(spec, 0, tmp_path)
    assert data.sample_shape == (4,)
    assert data.train.num_samples == 38
    assert str(tmp_path) not in sys.path


def test_a_function_of_the_same_name_in_another_folder(tmp_path):
    for number in (2, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "same_name.py").write_text(
            f"import numpy as np\ndef build():\n    return {{'x': np.eye(60), 'y': np.arange(60) % {number}}}\n"
        )
        spec = DataSpec(python="same_name:build", validation=5, calibration=5)
        assert load_data(spec, 0, folder).num_outputs == number


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise OSError('no disk')", "cannot import broken: OSError: no disk"),
        ("def built(): return {}", "broken has no function build; did you mean built?"),
        ("def build(): return 3", "broken:build returned int; it must return a dict of arrays"),
        ("def build(): return 1 / 0", "broken:build failed: ZeroDivisionError: division by zero"),
    ],
)
def test_functions_that_do_not_work(tmp_path, code, message):
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(DataError) as caught:
        load_data(DataSpec(python="broken:build"), 0, tmp_path)
    assert message in str(caught.value)
    sys.modules.pop("broken", None)


def test_a_function_that_is_not_named_as_one(tmp_path):
    with pytest.raises(DataError, match="'just_a_name' is no module:function"):
        load_data(DataSpec(python="just_a_name"), 0, tmp_path)


GOOD = {"x_train": images(40), "y_train": np.arange(40) % 2, "x_test": images(20), "y_test": np.arange(20) % 2}
WITH_NAN = np.ones((40, 3, 8, 8), np.float32)
WITH_NAN[7, 1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.arange(40) % 2 - 1}, r"y_train has the label -1 at sample 0: labels are whole numbers from 0"),
        ({"y_train": np.zeros(40)}, "y_train holds 0 for every sample: there is nothing to predict"),
        (
            {"y_train": np.arange(40.0)},
            "y_train holds real numbers, y_test whole numbers: give classes, or real",
        ),
        ({"y_train": np.arange(40.0) * np.nan}, "y_train holds NaN or infinity, first at sample 0"),
        ({"y_train": np.array(["a"] * 40)}, "y_train holds <U1: labels are whole numbers from 0, or real numbers"),
        ({"y_train": np.eye(40)}, r"y_train has shape \(40, 40\): labels are one class number a sample, or one real"),
        ({"y_train": np.zeros(0, int)}, "y_train is empty"),
        ({"y_train": np.zeros(39, int)}, "x_train has 40 samples, y_train has 39 labels"),
        ({"y_train": np.arange(40) % 2 * 2}, "no training sample has the class 1; number classes from 0, without gaps"),
        ({"labels": ["only"]}, "there is the label 1, and only 1 classes are named"),
        ({"labels": ["a", "b", "c"]}, "no training sample has the class c"),
        ({"y_test": np.arange(20) % 5}, "test has the label 4, train has 0 to 1 only"),
        (
            {"x_test": images(20, side=9)},
            r"samples of train are 8 × 8 × 3 \(uint8\), those of test 9 × 9 × 3 \(uint8\)",
        ),
        ({"x_test": np.ones((20, 8, 8, 3))}, r"train are 8 × 8 × 3 \(uint8\), those of test 8 × 8 × 3 \(float"),
        ({"x_train": images(40, channels=2)}, r"x_train has shape \(40, 8, 8, 2\): uint8 images are"),
        ({"x_train": images(40).transpose(0, 3, 1, 2)}, r"x_train has shape \(40, 3, 8, 8\): uint8 images are"),
        ({"x_train": WITH_NAN}, "x_train holds NaN or infinity, first at sample 7"),
        ({"x_train": WITH_NAN[:, :1] * np.inf}, "x_train holds NaN or infinity, first at sample 0"),
        ({"x_train": images(40).astype(str)}, "x_train holds <U"),
    ],
)
def test_wrong_arrays(tmp_path, change, message):
    spec = write_npz(tmp_path, **{**GOOD, **change})
    with pytest.raises(DataError, match=f"data.npz: .*{message}"):
        load_data(spec, 0, tmp_path)


def test_labels_and_real_numbers(tmp_path):
    numbers = {"y_train": np.arange(40.0), "y_test": np.arange(20.0)}
    with pytest.raises(DataError, match="labels name classes, and the targets are real numbers"):
        load_data(write_npz(tmp_path, **{**GOOD, **numbers}, labels=["a"]), 0, tmp_path)


def test_numbers_to_predict(tmp_path):
    x, y = images(60), np.linspace(-1, 2, 60)
    data = load_data(write_npz(tmp_path, x=x, y=y), 0, tmp_path)
    splits = [torch.cat([y for _, y in split]) for split in (data.train, data.validation, data.calibration, data.test)]
    assert (data.has_numbers, data.labels, data.num_outputs) == (True, (), 1)
    assert {each.dtype for each in splits} == {torch.float32}
    assert sorted(torch.cat(splits).tolist()) == y.astype(np.float32).tolist()


def test_a_split_of_numbers_that_are_all_the_same(tmp_path):
    y = np.zeros(60)
    y[59] = 1
    with pytest.raises(DataError, match=r"all targets of (validation|test) are the same: nothing can be measured"):
        load_data(write_npz(tmp_path, x=images(60), y=y), 0, tmp_path)


def test_missing_arrays(tmp_path):
    spec = write_npz(tmp_path, x_train=GOOD["x_train"], y_train=GOOD["y_train"])
    with pytest.raises(DataError, match=r"data.npz: x_test, y_test missing; give .* Found x_train, y_train"):
        load_data(spec, 0, tmp_path)
    with pytest.raises(DataError, match=r"here: x, y missing; .* Found nothing"):
        from_arrays({}, "here")


def test_pickled_arrays_are_refused(tmp_path):
    spec = write_npz(tmp_path, x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, int))
    with pytest.raises(DataError, match=r"data.npz holds pickled objects, .* not loaded; save arrays of numbers"):
        load_data(spec, 0, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_broken_npz(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"data.npz (is no whole npz file|holds pickled objects)"):
        load_data(DataSpec(npz="data.npz"), 0, tmp_path)


def test_missing_npz(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nowhere.npz"):
        load_data(DataSpec(npz="nowhere.npz"), 0, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": 320}, r"data.validation: 320 samples .* only 320 are there .*data.npz\)"),
        ({"validation": 300, "calibration": 20}, "data.calibration: 20 samples .* only 20 are there"),
        ({"test": 400}, "data.test: 400 samples .* only 400 are there"),
        ({"calibration": 12.5}, "data.calibration: 12.5 is neither a share below 1 nor a whole number"),
        ({"normalize": {"mean": [0.5], "std": [0.5]}}, "normalize has 1 channels, samples are 3 × 8 × 8"),
    ],
)
def test_settings_that_do_not_fit_the_data(tmp_path, change, message):
    spec = write_npz(tmp_path, x=images(400), y=np.arange(400) % 4)
    spec = DataSpec.model_validate({**spec.model_dump(), **change})
    with pytest.raises(DataError, match=message):
        load_data(spec, 0, tmp_path)


def test_only_images_are_augmented(tmp_path):
    spec = write_npz(tmp_path, x=np.ones((60, 5)), y=np.arange(60) % 2).model_copy(update={"augment": ("flip",)})
    with pytest.raises(DataError, match="normalize and augment are for images; samples are 5"):
        load_data(spec, 0, tmp_path)


def small_data(tmp_path, channels: int = 3):
    return load_data(write_npz(tmp_path, x=images(60, channels), y=np.arange(60) % 4), 0, tmp_path)


def classifier(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


def test_a_model_that_fits_passes_and_keeps_its_mode(tmp_path):
    model = classifier(3, 4).train()
    check_fits(small_data(tmp_path), model)
    assert model.training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (classifier(1, 4), "samples are 3 × 8 × 8, the model's first convolution takes 1 channels"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(10, 4)),
            "samples are 3 × 8 × 8, the model's first linear layer takes 10",
        ),
        (classifier(3, 3), "there are 4 classes, the model's output for a sample is 3"),
        (nn.Conv2d(3, 4, 3), "there are 4 classes, the model's output for a sample is 4 × 6 × 6"),
    ],
)
def test_a_model_that_does_not_fit(tmp_path, model, message):
    with pytest.raises(DataError, match=message):
        check_fits(small_data(tmp_path), model)


def test_the_first_held_out_samples_are_of_all_classes(tmp_path):
    spec = write_npz(tmp_path, x=images(400), y=np.repeat(np.arange(4), 100))
    data = load_data(spec.model_copy(update={"validation": 100, "calibration": 100, "batch_size": 32}), 0, tmp_path)
    for split in (data.train, data.validation, data.calibration):
        _, y = next(iter(split))
        assert len(set(y.tolist())) == 4
