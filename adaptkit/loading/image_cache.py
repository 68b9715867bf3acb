"""Decoded images on disk, as one memory-mapped array, so that each image is decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.loading.decode import Pixels, decode, is_gray
from adaptkit.loading.image_folder import Read, reader
from adaptkit.progress import Progress

_VERSION = 1
_PIXELS, _META, _PART = "images.bin", "meta.json", ".part-"
_BLOCK = 256
_PEEKED = 64
_CHECKED_BYTES = 1 << 30
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class CachedImages:
    """Decoded images.

    Args:
        pixels: N × H × W × C, mapped read-only.
        sha256: Of the names and contents of the files.
    """

    pixels: Pixels
    sha256: str


def cache_folder() -> Path:
    """Give `ADAPTKIT_CACHE`, or adaptkit's place in the user's cache folder, as the platform has it."""
    named = os.environ.get("ADAPTKIT_CACHE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "adaptkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "adaptkit" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptkit"


def cached_images(
    path: Path, files: Sequence[str], key: str, size: int | None, progress: Progress | None = None
) -> CachedImages:
    """Open the decoded images of a folder or zip; decode them first where that was not done before.

    A cache that is truncated or damaged is made anew. Runs that start at the same time do not disturb each other.

    Args:
        path: The folder or zip.
        files: Names inside it, in the order of the result.
        key: Hash of the content listing.
        size: Images are cut and resized to size × size; None leaves them.
        progress: Shows how far decoding is.

    Raises:
        DataError: An image cannot be read or has another shape than the first, or the cache cannot be written.
    """
    name = hashlib.sha256(json.dumps([_VERSION, key, size, list(files)]).encode()).hexdigest()[:32]
    folder = cache_folder() / "images" / name
    found = _open(folder)
    if found is None:
        try:
            _build(folder, path, files, size, progress)
        except OSError as error:
            raise DataError(
                f"cannot write the image cache in {folder.parent}: {error.strerror or error}. "
                "Free some space, or set ADAPTKIT_CACHE to another folder"
            ) from error
        found = _open(folder)
    if found is None:
        raise DataError(f"the image cache {folder} was damaged right after it was written; look after the disk")
    return found


def _open(folder: Path) -> CachedImages | None:
    """Map a cache; None where there is none or it is not whole."""
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text())
        pixels: Pixels = np.memmap(folder / _PIXELS, np.uint8, "r", shape=tuple(meta["shape"]))
        intact = (folder / _PIXELS).stat().st_size == pixels.size and _checksums_hold(pixels, meta["crc32"])
        return CachedImages(pixels, meta["sha256"]) if intact else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checksums_hold(pixels: Pixels, checksums: list[int]) -> bool:
    """Compare all blocks; of a cache above 1 GiB, as many evenly spread ones as make up 1 GiB."""
    affordable = max(1, _CHECKED_BYTES // max(1, pixels[:_BLOCK].size))
    stride = -(-len(checksums) // affordable)
    return len(checksums) == -(-len(pixels) // _BLOCK) and all(
        zlib.crc32(pixels[number * _BLOCK : (number + 1) * _BLOCK].data) == checksums[number]
        for number in range(0, len(checksums), stride)
    )


def _build(folder: Path, path: Path, files: Sequence[str], size: int | None, progress: Progress | None) -> None:
    """Write the cache under a temporary name, flush it to the disk, and rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    part = folder.parent / f"{_PART}{uuid.uuid4().hex}"
    part.mkdir()
    try:
        with reader(path) as read:
            meta = _write(part, path, files, size, read, progress)
        _flushed(part / _META, json.dumps(meta).encode())
        _replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(
    part: Path, path: Path, files: Sequence[str], size: int | None, read: Read, progress: Progress | None
) -> dict[str, Any]:
    digest, checksums = hashlib.sha256(), []
    channels = _channels(path, files, read)
    shape: tuple[int, ...] | None = None
    with (part / _PIXELS).open("wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in _blocks(files):
            contents = [_content(read, path, name) for name in block]
            for name, content in zip(block, contents, strict=True):
                digest.update(f"{name} {len(content)}\n".encode() + content)
            names = [f"{path}: {name}" for name in block]
            images = list(pool.map(decode, contents, names, [channels] * len(block), [size] * len(block)))
            shape = shape or images[0].shape
            _check_shapes(names, images, shape)
            rows = np.stack(images)
            checksums.append(zlib.crc32(rows.data))
            out.write(rows.data)
            if progress is not None:
                progress.update(len(checksums) * _BLOCK, len(files), "decoding images, once")
        out.flush()
        os.fsync(out.fileno())
    if progress is not None:
        progress.close()
    return {"shape": [len(files), *(shape or ())], "crc32": checksums, "sha256": digest.hexdigest()}


def _channels(path: Path, files: Sequence[str], read: Read) -> int:
    """Gray images have one channel, if all of those looked at are gray."""
    peeked = files[:: -(-len(files) // _PEEKED)]
    return 1 if all(is_gray(_content(read, path, name), f"{path}: {name}") for name in peeked) else 3


def _content(read: Read, path: Path, name: str) -> bytes:
    try:
        return read(name)
    except Exception as error:  # a zip answers a damaged entry with errors of many kinds
        raise DataError(f"{path}: {name} cannot be read: {error}") from error


def _check_shapes(names: list[str], images: list[Pixels], shape: tuple[int, ...]) -> None:
    for name, image in zip(names, images, strict=True):
        if image.shape != shape:
            raise DataError(
                f"{name} has {image.shape[1]} × {image.shape[0]} pixels, the images before {shape[1]} × {shape[0]}: "
                "give data.size to bring all to one size"
            )


def _blocks(files: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(files)
    while block := list(itertools.islice(rest, _BLOCK)):
        yield block


def _flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(part: Path, folder: Path) -> None:
    """Put the new cache in its place; what another run just put there is as good."""
    if folder.exists() and _open(folder) is None:
        folder.rename(folder.parent / f"{_PART}{uuid.uuid4().hex}")
    try:
        part.rename(folder)
    except OSError:
        if _open(folder) is None:
            raise


def _remove_stale(parent: Path) -> None:
    """Delete what killed runs left half-written, once no living run can be at it."""
    for left in parent.glob(f"{_PART}*"):
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
