import errno
import os

import pytest

from adaptkit.errors import RunFolderError
from adaptkit.files import write_atomically


def test_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"the disk is full.*--resume"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_really_full_device(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb", buffering=0) as device, pytest.raises(OSError, match="No space") as full:
        device.write(b"x")
    from adaptkit.files import explain_os_error

    assert "the disk is full" in str(explain_os_error(full.value, tmp_path))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RunFolderError, match="cannot write"):
        write_atomically(tmp_path / "missing" / "a", "x")
