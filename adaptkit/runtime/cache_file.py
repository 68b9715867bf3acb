"""The entries of a cache on disk: whole, or not read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from adaptkit.errors import DataError
from adaptkit.files import write_atomically
from adaptkit.runtime.result import Array

_MAGIC = b"adaptkit entries 2\n"
_DIGEST = 32
_VERSION = "version"


def write_entries(path: Path, version: str, entries: dict[str, Array]) -> None:
    """Write entries, so that a killed process leaves the old file or the new one.

    The file is a line that names the format, the SHA-256 of what follows, and safetensors.

    Args:
        path: Of the file.
        version: Hash in hexadecimal digits of the model that the answers are of.
        entries: Arrays by name.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written; the old file is intact.
    """
    named = {name: np.ascontiguousarray(array) for name, array in entries.items()}
    content = safetensors.numpy.save({**named, _VERSION: np.frombuffer(bytes.fromhex(version), np.uint8)})
    write_atomically(path, (_MAGIC, hashlib.sha256(content).digest(), content))


def read_entries(path: Path, version: str) -> dict[str, Array]:
    """Read entries back.

    Args:
        path: Of the file.
        version: As it was written with.

    Raises:
        DataError: The file is missing, damaged, or holds the answers of another model.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "entries.cache")
        >>> write_entries(path, "ab", {"uses": np.arange(2)})
        >>> read_entries(path, "ab")["uses"].tolist()
        [0, 1]
    """
    if path.exists() and not path.is_file():  # such as /dev/zero, which has no end
        raise DataError(f"{path} holds no entries of a cache: it is no file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    head = len(_MAGIC) + _DIGEST
    if not content.startswith(_MAGIC):
        raise DataError(f"{path} holds no entries of a cache")
    body = content[head:]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : head]:
        raise DataError(f"{path} is damaged: its bytes are not those that were written")
    try:
        found: dict[str, Array] = safetensors.numpy.load(body)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if found.pop(_VERSION, np.zeros(0, np.uint8)).tobytes() != bytes.fromhex(version):
        raise DataError(f"{path} holds answers of another model or another preprocessing")
    return found
