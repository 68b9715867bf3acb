"""Class folders with images, in a folder or in a zip: which files there are, and what they are for."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adaptkit.errors import DataError

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class ImageSplit:
    """Files of one split, in the order of their names, and the class of each."""

    files: tuple[str, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class ImageTree:
    """What a folder of class folders holds.

    Args:
        path: The folder or the zip.
        labels: Names of the class folders, sorted.
        train: Its files; all files where the tree has no splits.
        test: Files below test/; those below val/ where there is no test/.
        validation: Files below val/ where there is test/ too.
        key: Hash of all names with sizes and checksums (zip) or times of change (folder).
    """

    path: Path
    labels: tuple[str, ...]
    train: ImageSplit
    test: ImageSplit | None
    validation: ImageSplit | None
    key: str


@dataclass(frozen=True)
class _Listing:
    stamps: dict[str, str]
    folders: frozenset[str]


def scan(path: Path) -> ImageTree:
    """Find the splits, the classes and the images, without reading an image.

    Args:
        path: A folder or a zip: `train/<class>/<image>` and `test/…` or `val/…`, or `<class>/<image>`, possibly below
            one folder more. Files that are no images, and names that begin with a dot, are passed over.

    Raises:
        DataError: There is no such file, a class has no image, or the splits have different classes.
    """
    listing = _list_zip(path) if path.is_file() else _list_folder(path)
    root, tops = _root(listing)
    train, test, validation = (_pick(tops, names) for names in (_TRAIN, _TEST, _VALIDATION))
    if train is None:
        train, test, validation = "", None, None
    elif test is None:
        test, validation = validation, None
    labels = _classes(listing, root, train, path)
    parts = [None if top is None else _split(listing, root, top, labels, path) for top in (train, test, validation)]
    assert parts[0] is not None
    digest = hashlib.sha256()
    for name, stamp in sorted(listing.stamps.items()):
        digest.update(f"{name} {stamp}\n".encode())
    return ImageTree(path, labels, parts[0], parts[1], parts[2], digest.hexdigest())


@contextmanager
def reader(path: Path) -> Iterator[Read]:
    """Open a folder or zip, and give the function that reads a file of it."""
    if not path.is_file():
        yield lambda name: (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        yield archive.read


def _list_zip(path: Path) -> _Listing:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no whole zip file: {error}") from error
    stamps = {e.filename: f"{e.file_size} {e.CRC:08x}" for e in entries if not e.is_dir() and _visible(e.filename)}
    folders = {e.filename.rstrip("/") for e in entries if e.is_dir() and _visible(e.filename)}
    folders |= {name.rpartition("/")[0] for name in stamps}
    parents = {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    return _Listing(stamps, frozenset(folders | parents) - {"", "."})


def _list_folder(path: Path) -> _Listing:
    if not path.is_dir():
        raise DataError(f"there is no folder or zip file {path}")
    stamps, folders = {}, set()
    for found in path.rglob("*"):
        name = found.relative_to(path).as_posix()
        if not _visible(name):
            continue
        if found.is_dir():
            folders.add(name)
        else:
            status = found.stat()
            stamps[name] = f"{status.st_size} {status.st_mtime_ns}"
    return _Listing(stamps, frozenset(folders))


def _visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX/")) and "/." not in name


def _root(listing: _Listing) -> tuple[str, list[str]]:
    """Go down while there is one folder only; return the place and the folders there."""
    root = ""
    while True:
        tops = sorted(name.removeprefix(root) for name in listing.folders if _child(name, root))
        inner = [name for name in listing.folders if len(tops) == 1 and _child(name, f"{root}{tops[0]}/")]
        if not inner:
            return root, tops
        root += f"{tops[0]}/"


def _child(name: str, root: str) -> bool:
    return name.startswith(root) and "/" not in name.removeprefix(root)


def _pick(tops: list[str], names: tuple[str, ...]) -> str | None:
    return next((f"{top}/" for top in tops if top.lower() in names), None)


def _classes(listing: _Listing, root: str, top: str, path: Path) -> tuple[str, ...]:
    base = root + top
    labels = sorted(name.removeprefix(base) for name in listing.folders if _child(name, base))
    if not labels:
        raise DataError(f"{path} holds no class folders: images go into one folder a class, such as train/cat/1.jpg")
    return tuple(labels)


def _split(listing: _Listing, root: str, top: str, labels: tuple[str, ...], path: Path) -> ImageSplit:
    base = root + top
    own = _classes(listing, root, top, path)
    if own != labels:
        odd = ", ".join(sorted(set(own) ^ set(labels))[:5])
        raise DataError(f"{path}: {top.rstrip('/')} and train have different classes: only one of them has {odd}")
    number = {label: index for index, label in enumerate(labels)}
    pairs = sorted(
        (name, number[inner.split("/")[0]])
        for name in listing.stamps
        if name.startswith(base)
        and "/" in (inner := name.removeprefix(base))
        and os.path.splitext(name)[1].lower() in _IMAGES
    )
    present = {label for _, label in pairs}
    empty = [label for label in labels if number[label] not in present]
    if empty:
        raise DataError(f"{path}: the class folder {base}{empty[0]} holds no image")
    return ImageSplit(tuple(name for name, _ in pairs), tuple(label for _, label in pairs))
