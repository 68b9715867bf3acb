"""The run folder: its lock file, what each step leaves there, and going on after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from adaptkit.errors import RunFolderError
from adaptkit.files import PART, explain_os_error, write_atomically
from adaptkit.report.schema import Report

LOCK = "recipe.lock.yaml"
REPORT = "report.json"
_IN_USE = ".in-use"
_DONE = "done.json"
Facts = TypeVar("Facts", bound=BaseModel)


class RunFolder:
    """A folder that belongs to one run at a time.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_finished(self) -> bool:
        """Whether a report has been written."""
        return (self.path / REPORT).is_file()

    def read_report(self) -> Report:
        """Give the report of a finished run.

        Raises:
            RunFolderError: It is damaged.
        """
        return _read(self.path / REPORT, Report)

    def read_lock(self) -> str | None:
        """Give the text of the lock file, or None where the run has not come so far.

        Raises:
            RunFolderError: It is no text.
        """
        lock = self.path / LOCK
        return _text(lock) if lock.is_file() else None

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file of the folder, whole or not at all; `name` may lie in a folder of its own."""
        _make((self.path / name).parent)
        write_atomically(self.path / name, content)

    def step(self, index: int, name: str) -> StepFolder:
        """Give the folder of a step, counted from 1; index 0 is the baseline."""
        return StepFolder(self.path / "steps" / f"{index:02d}-{name}")


class StepFolder:
    """What one step leaves behind; it counts only once it is marked done.

    Args:
        path: The folder, made at the first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def workspace(self) -> Path:
        """A folder for what the step needs to go on in its middle."""
        return _make(self.path / "work")

    @property
    def is_done(self) -> bool:
        """Whether the step was finished."""
        return (self.path / _DONE).is_file()

    def read_done(self, kind: type[Facts], key: str | None = None) -> Facts:
        """Give the facts a finished step was marked with, or those of them under `key`.

        Raises:
            RunFolderError: They are damaged.
        """
        return _read(self.path / _DONE, kind, key)

    def make(self) -> Path:
        """Make the folder and give its path."""
        return _make(self.path)

    def make_empty(self, name: str) -> Path:
        """Make a folder inside that holds nothing of an earlier attempt."""
        shutil.rmtree(self.path / name, ignore_errors=True)
        return _make(self.path / name)

    def mark_done(self, facts: dict[str, Any], drop_workspace: bool = True) -> None:
        """Record that everything of this step is on the disk, and drop its workspace unless others still need it."""
        write_atomically(_make(self.path) / _DONE, json.dumps(facts, indent=1, sort_keys=True) + "\n")
        if drop_workspace:
            self.drop_workspace()

    def drop_workspace(self) -> None:
        """Remove what a step needs to go on in its middle."""
        shutil.rmtree(self.path / "work", ignore_errors=True)


@contextmanager
def open_run(path: Path, resume: bool) -> Iterator[RunFolder]:
    """Take a run folder for this process; it is freed when the process ends, however it ends.

    Args:
        path: The folder, made where it is absent.
        resume: Go on with what stands in the folder.

    Raises:
        RunFolderError: Another process uses it, it holds a run and `resume` is not given, or it cannot be written.
    """
    _make(path)
    try:
        handle = os.open(path / _IN_USE, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        _take(handle, path)
        _refuse_foreign(path, resume)
        yield RunFolder(path)
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(
            f"{path} is in use by another adaptkit process: wait for it, or choose another folder with --output"
        ) from error


def _refuse_foreign(path: Path, resume: bool) -> None:
    for unfinished in path.rglob(f".*{PART}"):
        unfinished.unlink()
    content = {entry.name for entry in path.iterdir()} - {_IN_USE}
    if not content:
        return
    if LOCK not in content and "steps" not in content:
        raise RunFolderError(f"{path} holds other files: choose an empty or new folder with --output")
    if not resume:
        state = "a finished run" if REPORT in content else "an unfinished run"
        raise RunFolderError(f"{path} holds {state}: go on with --resume, or choose another folder with --output")


def _read(path: Path, kind: type[Facts], key: str | None = None) -> Facts:
    text = _text(path)
    try:
        found = json.loads(text)
        return kind.model_validate(found if key is None else found[key])
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        raise _damaged(path) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path) from error
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error


def _damaged(path: Path) -> RunFolderError:
    return RunFolderError(f"{path} is damaged: run the recipe again, in another folder with --output")


def _make(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
    return path
