import io
import json
import multiprocessing
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit.errors import DataError
from adaptkit.loading import image_cache
from adaptkit.loading.data import load_data
from adaptkit.loading.image_cache import cache_folder, cached_images
from adaptkit.loading.image_folder import scan
from adaptkit.specs import DataSpec


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def png(value: int, width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
    color = {"RGB": (value, 2 * value, 255 - value), "L": value, "I;16": 300 + value}[mode]
    buffer = io.BytesIO()
    Image.new(mode, (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def tree(counts: dict[str, int], **options) -> dict[str, bytes]:
    """Files of a tree: folder -> how many images; every image has its own colour."""
    numbers = iter(range(1000))
    return {
        f"{folder}/{i}.png": png(next(numbers), **options) for folder, count in counts.items() for i in range(count)
    }


def write(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def spec_of(path: Path, **options) -> DataSpec:
    return DataSpec(imagefolder=str(path), **{"validation": 2, "calibration": 2, **options})


SPLIT = {"train/cat": 6, "train/dog": 6, "test/cat": 3, "test/dog": 2}


@pytest.mark.parametrize("name", ["folder", "images.zip"])
@pytest.mark.parametrize("top", ["", "top/", "one/two/"])
def test_split_trees(tmp_path, name, top):
    files = {top + name: content for name, content in tree(SPLIT).items()}
    data = load_data(spec_of(write(tmp_path / name, files)), 0)
    assert data.labels == ("cat", "dog")
    assert data.sample_shape == (3, 8, 8)
    assert [part.num_samples for part in (data.train, data.validation, data.calibration, data.test)] == [8, 2, 2, 5]
    x, y = next(iter(data.test))
    assert y.tolist() == [0, 0, 0, 1, 1]
    assert [round(255 * float(image[0, 0, 0])) for image in x] == [12, 13, 14, 15, 16]
    assert round(255 * float(x[0, 2, 0, 0])) == 243


def test_a_validation_split_of_the_source_is_mixed(tmp_path):
    counts = {"train/cat": 6, "train/dog": 6, "val/cat": 20, "val/dog": 20, "test/cat": 1, "test/dog": 1}
    data = load_data(spec_of(write(tmp_path / "f", tree(counts)), batch_size=10), 0)
    y = torch.cat([y for _, y in data.validation])
    assert y.bincount().tolist() == [20, 20]
    assert len(set(y[:10].tolist())) == 2


def test_folder_and_zip_have_the_same_content_hash(tmp_path):
    folder, archive = (load_data(spec_of(write(tmp_path / name, tree(SPLIT))), 0) for name in ("folder", "a.zip"))
    other = load_data(spec_of(write(tmp_path / "b.zip", {**tree(SPLIT), "train/cat/0.png": png(99)})), 0)
    assert folder.sha256 == archive.sha256 != other.sha256


def test_one_tree_is_split(tmp_path):
    data = load_data(spec_of(write(tmp_path / "f", tree({"cat": 10, "dog": 10})), test=4), 0)
    assert [part.num_samples for part in (data.train, data.validation, data.calibration, data.test)] == [12, 2, 2, 4]


def test_val_is_the_test_split_where_there_is_no_other(tmp_path):
    two = scan(write(tmp_path / "two", tree({"train/a": 2, "val/a": 1})))
    assert (two.test.files, two.validation) == (("val/a/0.png",), None)
    three = scan(write(tmp_path / "three", tree({"train/a": 2, "val/a": 1, "test/a": 1})))
    assert (three.test.files, three.validation.files) == (("test/a/0.png",), ("val/a/0.png",))


def test_a_validation_split_of_the_source_is_kept(tmp_path):
    counts = {"train/a": 6, "train/b": 6, "val/a": 3, "val/b": 1, "test/a": 1, "test/b": 1}
    data = load_data(spec_of(write(tmp_path / "f", tree(counts))), 0)
    assert [part.num_samples for part in (data.train, data.validation, data.calibration, data.test)] == [10, 4, 2, 2]


def test_other_files_are_passed_over(tmp_path):
    junk = {"train/cat/.hidden.png": b"", "train/cat/notes.txt": b"", ".git/x/y.png": b"", "train/.DS_Store": b""}
    found = scan(write(tmp_path / "f", {**tree(SPLIT), **junk}))
    assert found.labels == ("cat", "dog")
    assert len(found.train.files) == 12
    assert scan(write(tmp_path / "a.zip", {**tree(SPLIT), "__MACOSX/train/cat/0.png": b""})).labels == ("cat", "dog")


def test_gray_images_have_one_channel(tmp_path):
    assert load_data(spec_of(write(tmp_path / "g", tree(SPLIT, mode="L"))), 0).sample_shape == (1, 8, 8)
    mixed = {**tree(SPLIT), "train/cat/0.png": png(7, mode="L")}
    assert load_data(spec_of(write(tmp_path / "m", mixed)), 0).sample_shape == (3, 8, 8)


def test_the_middle_square_is_resized(tmp_path):
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 255, 0), (10, 0, 20, 10))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    files = {name: buffer.getvalue() for name in tree(SPLIT)}
    files["train/cat/0.png"] = png(1, 40, 17)
    data = load_data(spec_of(write(tmp_path / "f", files), size=5), 0)
    x, _ = next(iter(data.test))
    assert data.sample_shape == (3, 5, 5)
    assert np.allclose(x[0, 1, :, 1:4], 1)
    assert np.allclose(x[0, 0, :, 1:4], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/dog/3.png": b"not an image"}, r"f: train/dog/3\.png cannot be read as an image"),
        ({"test/dog/1.png": png(3)[:45]}, r"f: test/dog/1\.png cannot be read as an image"),
        (
            {"train/dog/3.png": png(3, 9, 8)},
            r"f: train/dog/3\.png has 9 × 8 pixels, the images before 8 × 8: give data\.size",
        ),
        ({"train/dog/3.png": png(3, mode="I;16")}, r"f: train/dog/3\.png has pixels of more than 8 bits"),
        ({"train/cow/0.png": png(3)}, r"f: test and train have different classes: only one of them has cow"),
        ({"train/cow/0.txt": b"", "test/cow/0.png": png(1)}, r"f: the class folder train/cow holds no image"),
        ({"train/cow/0.png": png(1), "test/cow/notes": b""}, r"f: the class folder test/cow holds no image"),
    ],
)
def test_wrong_trees(tmp_path, change, message, cache):
    path = write(tmp_path / "f", {**tree(SPLIT), **change})
    with pytest.raises(DataError, match=message):
        load_data(spec_of(path), 0)
    assert not cache.exists() or not list(cache.iterdir())


def test_colours_among_gray_images(tmp_path):
    files = {**tree({"train/a": 130, "test/a": 2}, mode="L"), "train/a/57.png": png(5)}
    path = write(tmp_path / "f", files)
    names = sorted(name for name in files if name.startswith("train"))
    assert names.index("train/a/57.png") % 3 != 0, "it must not be one of those that are looked at first"
    with pytest.raises(DataError, match=r"train/a/57\.png has colours \(RGB\), the images before are gray"):
        load_data(spec_of(path), 0)


def test_trees_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder or zip file .*nowhere"):
        load_data(spec_of(tmp_path / "nowhere"), 0)
    with pytest.raises(DataError, match=r"flat holds no class folders: .* such as train/cat/1.jpg"):
        load_data(spec_of(write(tmp_path / "flat", {"1.png": png(1), "2.png": png(2)})), 0)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"bad\.zip is no whole zip file"):
        load_data(spec_of(tmp_path / "bad.zip"), 0)


def test_a_damaged_entry_of_a_zip_is_named(tmp_path):
    path = write(tmp_path / "a.zip", tree(SPLIT))
    content = bytearray(path.read_bytes())
    place = content.index(png(4))
    content[place + 40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: train/cat/4\.png cannot be read: Bad CRC-32"):
        load_data(spec_of(path), 0)


def open_cache(path: Path) -> image_cache.CachedImages:
    found = scan(path)
    return cached_images(path, found.train.files, found.key, None)


def test_images_are_decoded_once(tmp_path, monkeypatch):
    path = write(tmp_path / "f", tree(SPLIT))
    first = open_cache(path)
    monkeypatch.setattr(image_cache, "decode", None)
    second = open_cache(path)
    assert np.array_equal(first.pixels, second.pixels)
    assert first.sha256 == second.sha256


def test_changed_content_is_decoded_anew(tmp_path):
    path = write(tmp_path / "f", tree(SPLIT))
    before = open_cache(path).pixels[0, 0, 0].tolist()
    (path / "train/cat/0.png").write_bytes(png(77))
    assert before == [0, 0, 255]
    assert open_cache(path).pixels[0, 0, 0].tolist() == [77, 154, 178]


def cut(folder: Path) -> None:
    with (folder / "images.bin").open("r+b") as file:
        file.truncate(100)


def flip_a_bit(folder: Path) -> None:
    with (folder / "images.bin").open("r+b") as file:
        file.seek(500)
        value = file.read(1)[0]
        file.seek(500)
        file.write(bytes([value ^ 1]))


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def cut_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"shape": [12, 8')


def lie_in_meta(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "crc32": []}))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lose_meta, cut_meta, lie_in_meta])
def test_a_damaged_cache_is_made_anew(tmp_path, cache, damage):
    path = write(tmp_path / "f", tree(SPLIT))
    expected = np.array(open_cache(path).pixels)
    (folder,) = cache.iterdir()
    damage(folder)
    assert np.array_equal(open_cache(path).pixels, expected)
    assert image_cache._open(folder) is not None


def test_a_big_cache_is_checked_in_samples(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(image_cache, "_BLOCK", 2)
    path = write(tmp_path / "f", tree(SPLIT))
    expected = np.array(open_cache(path).pixels)
    monkeypatch.setattr(image_cache, "_CHECKED_BYTES", 2 * 2 * 8 * 8 * 3)
    (folder,) = cache.iterdir()
    flip_a_bit(folder)  # in the second block of six, of which the first and the fourth are looked at
    assert not np.array_equal(open_cache(path).pixels, expected)


def test_the_cache_that_cannot_be_written(tmp_path, monkeypatch):
    path = write(tmp_path / "f", tree(SPLIT))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write the image cache in .*file/images: .* set ADAPTKIT_CACHE"):
        open_cache(path)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, cache):
    path = write(tmp_path / "f", tree(SPLIT))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write the image cache in .*: File too large\. Free some space"):
            open_cache(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(cache.iterdir()) == []


def _hash_of(path: str) -> str:
    return open_cache(Path(path)).sha256


@pytest.mark.slow
def test_runs_that_start_together(tmp_path, cache):
    path = write(tmp_path / "f", tree(SPLIT))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        hashes = pool.map(_hash_of, [str(path)] * 6)
    assert len(set(hashes)) == 1
    assert [folder.name for folder in cache.iterdir() if folder.name.startswith(".")] == []


def test_another_run_was_faster(tmp_path, cache, monkeypatch):
    """Between our look and our rename, somebody else finishes the same cache."""
    path = write(tmp_path / "f", tree(SPLIT))
    expected = np.array(open_cache(path).pixels)
    found = scan(path)
    (folder,) = cache.iterdir()
    image_cache._build(folder, path, found.train.files, None, None)
    assert np.array_equal(open_cache(path).pixels, expected)
    assert list(cache.iterdir()) == [folder]


def test_what_killed_runs_left_is_removed_after_a_day(tmp_path, cache):
    old, new = cache / ".part-old", cache / ".part-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    open_cache(write(tmp_path / "f", tree(SPLIT)))
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"ADAPTKIT_CACHE": "/a"}, "/a"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/adaptkit"),
        ("linux", {}, "/home/me/.cache/adaptkit"),
        ("darwin", {}, "/home/me/Library/Caches/adaptkit"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/adaptkit/Cache"),
    ],
)
def test_the_place_of_the_cache(monkeypatch, platform, environment, expected):
    for name in ("ADAPTKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert cache_folder() == Path(expected)


@pytest.mark.slow
def test_cifar10_of_the_shared_data(shared_data, monkeypatch):
    """The real thing; its cache goes to the user's folder, as it takes its time."""
    monkeypatch.delenv("ADAPTKIT_CACHE")
    data = load_data(DataSpec(imagefolder=str(shared_data / "data" / "cifar10-jpeg.zip"), validation=5000), 0)
    assert [part.num_samples for part in (data.train, data.validation, data.calibration, data.test)] == [
        44488,
        5000,
        512,
        10000,
    ]
    assert data.labels[3] == "cat"
