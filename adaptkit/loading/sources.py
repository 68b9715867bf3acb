"""The sources a recipe may name: digits, npz, imagefolder, torchvision, python."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.loading.arrays import Samples, Source, from_arrays
from adaptkit.loading.decode import to_pixels
from adaptkit.loading.image_cache import cached_images
from adaptkit.loading.image_folder import ImageSplit, scan
from adaptkit.loading.python_path import call_named
from adaptkit.loading.splits import hold_out
from adaptkit.progress import Progress
from adaptkit.specs import DataSpec


def read_source(spec: DataSpec, folder: Path, progress: Progress | None = None) -> Source:
    """Read the data a recipe names.

    Args:
        spec: Exactly one source.
        folder: Relative paths start here.
        progress: Shows how far the decoding of images is.

    Raises:
        DataError: Anything missing, broken or wrong in it, named.
    """
    if spec.digits:
        return _digits(spec.size)
    if spec.npz is not None:
        return _npz(folder / spec.npz)
    if spec.imagefolder is not None:
        return _image_folder(folder / spec.imagefolder, spec.size, progress)
    if spec.torchvision is not None:
        return _torchvision(spec.torchvision, spec, folder)
    arrays = call_named(str(spec.python), spec.args, folder, DataError)
    if not isinstance(arrays, Mapping):
        raise DataError(f"{spec.python} returned {type(arrays).__name__}; it must return a dict of arrays")
    return from_arrays(arrays, str(spec.python))


def _digits(size: int | None) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images / 16.0).astype(np.float32)[:, None], digits.target
    if size is not None:
        x = _scaled(x, size)
    # The same test split whatever the seed, so that the zoo's weights have never seen it.
    train, test = hold_out(y, 0.2, 0, "test", "digits")
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return from_arrays({**arrays, "labels": digits.target_names}, "digits")


def _scaled(x: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Scale N × C × H × W to size × size, with averaging where images shrink."""
    import torch
    from torch.nn import functional as F

    scaled: np.ndarray[Any, Any] = F.interpolate(
        torch.from_numpy(x), (size, size), mode="bilinear", antialias=True
    ).numpy()
    return scaled


def _npz(path: Path) -> Source:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which can run any code and are not loaded; save arrays of numbers"
            ) from error
        raise DataError(f"{path} is no whole npz file: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no whole npz file") from error
    return from_arrays(arrays, str(path))


def _image_folder(path: Path, size: int | None, progress: Progress | None) -> Source:
    tree = scan(path)
    splits = [split for split in (tree.train, tree.test, tree.validation) if split is not None]
    cached = cached_images(path, [name for split in splits for name in split.files], tree.key, size, progress)
    start = 0
    samples: list[Samples] = []
    for split in splits:
        samples.append(_slice(cached.pixels, start, split))
        start += len(split.files)
    test, validation = (*samples[1:], None, None)[:2]
    return Source(str(path), samples[0], test, validation, tree.labels, cached.sha256)


def _slice(pixels: np.ndarray[Any, Any], start: int, split: ImageSplit) -> Samples:
    return Samples(pixels[start : start + len(split.files)], np.array(split.classes, dtype=np.int64))


def _torchvision(name: str, spec: DataSpec, folder: Path) -> Source:
    from torchvision import datasets

    if name not in datasets.__all__ or not inspect.isclass(getattr(datasets, name)):
        near = difflib.get_close_matches(name, datasets.__all__, n=1)
        raise DataError(f"torchvision has no data set {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    kind = getattr(datasets, name)
    accepted = inspect.signature(kind).parameters
    if "train" in accepted:
        choices: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    elif "split" in accepted:
        choices = [{"split": "train"}, {"split": "test"}]
    else:
        choices = [{}]
    common: dict[str, Any] = {"root": str(folder / (spec.root or "data")), **spec.args}
    if "download" in accepted:
        common["download"] = spec.download
    sets = [_make(kind, {**common, **choice}, spec.download) for choice in choices]
    names = ("x_train", "y_train", "x_test", "y_test") if len(sets) == 2 else ("x", "y")
    parts = [part for one in sets for part in _images_of(one, name, spec.size)]
    arrays: dict[str, Any] = dict(zip(names, parts, strict=True))
    labels = getattr(sets[0], "classes", None)
    return from_arrays(arrays if labels is None else {**arrays, "labels": labels}, f"torchvision {name}")


def _make(kind: Any, arguments: dict[str, Any], download: bool) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where torchvision tells of downloads; stdout is for results
            return kind(**arguments)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        hint = "" if download else "; put its files there, or set data.download: true"
        text = str(error).strip().split("\n")[0]
        raise DataError(f"torchvision {kind.__name__} in {arguments['root']}: {text}{hint}") from error


def _images_of(data: Any, name: str, size: int | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Take the arrays a data set holds; decode image by image where it holds none, or where a size is asked for."""
    if size is None and hasattr(data, "data") and hasattr(data, "targets"):
        return np.asarray(data.data), np.asarray(data.targets)
    images, labels = [], []
    for number in range(len(data)):
        image, label = data[number]
        images.append(to_pixels(image, f"torchvision {name}, sample {number}", None, size))
        labels.append(label)
    odd = next((number for number, image in enumerate(images) if image.shape != images[0].shape), None)
    if odd is not None:
        raise DataError(
            f"torchvision {name}, sample {odd} has shape {images[odd].shape}, the samples before {images[0].shape}: "
            "give data.size to bring all to one size"
        )
    return np.stack(images), np.asarray(labels)
