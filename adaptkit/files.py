"""Files that are either whole or not there."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError, RunFolderError

PART = ".part"
"""What the name of an unfinished file ends in."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


def write_atomically(path: Path, content: bytes | str | Iterable[Any]) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    A killed process leaves the old file or the new one, never half of either.

    Args:
        path: The file; its folder must exist.
        content: Bytes, text that is written as UTF-8, or pieces that hold bytes, written one after the other.

    Raises:
        RunFolderError: The disk is full, or the folder cannot be written; the old file is intact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder, "a.txt"), "whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    data = content.encode() if isinstance(content, str) else content
    pieces: Iterable[Any] = [data] if isinstance(data, bytes) else data
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def explain_os_error(error: OSError, path: Path) -> AdaptkitError:
    """Turn an error of the operating system while writing `path` into one that says what to do."""
    if error.errno in _FULL:
        return RunFolderError(
            f"the disk is full: {path} was not written; what stood there before is intact. "
            "Free some space and run the same command with --resume"
        )
    if error.errno in _DENIED:
        return RunFolderError(f"cannot write {path}: {error.strerror}. Choose another folder with --output")
    return RunFolderError(f"cannot write {path}: {error.strerror or error}")
