import multiprocessing

import pytest

from adaptkit.errors import RunFolderError
from adaptkit.lock import compare
from adaptkit.report.schema import Ratio
from adaptkit.run_dir import LOCK, REPORT, open_run


def _hold(path, taken, leave):
    with open_run(path, resume=False):
        taken.set()
        leave.wait(30)


def test_a_second_process_is_refused_and_a_killed_one_frees_the_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", taken, leave))
    process.start()
    assert taken.wait(60)
    with pytest.raises(RunFolderError, match="in use by another adaptkit process"), open_run(tmp_path / "run", True):
        pass
    process.kill()
    process.join()
    with open_run(tmp_path / "run", resume=True) as folder:
        assert folder.read_lock() is None


@pytest.mark.parametrize(("name", "state"), [(LOCK, "an unfinished run"), (REPORT, "a finished run")])
def test_a_folder_with_a_run_needs_resume(tmp_path, name, state):
    with open_run(tmp_path, resume=False) as folder:
        folder.write(LOCK, "version: 1\n")
        folder.write(name, "{}")
    with pytest.raises(RunFolderError, match=f"holds {state}: go on with --resume"), open_run(tmp_path, False):
        pass
    with open_run(tmp_path, resume=True) as folder:
        assert folder.is_finished == (name == REPORT)


def test_a_folder_of_other_things_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(RunFolderError, match="holds other files"), open_run(tmp_path, resume):
            pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run"
    with pytest.raises(RunFolderError, match=r"cannot write .*Choose another folder"), open_run(place, False):
        pass


def test_unfinished_files_of_a_killed_process_are_swept(tmp_path):
    (tmp_path / ".model.onnx.abc.part").write_text("half")
    with open_run(tmp_path, resume=False):
        assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"{}", b'{"ratio": {"median": "x"}}', b"[" * 100_000])
def test_what_a_step_or_a_run_left_is_damaged(tmp_path, content):
    with open_run(tmp_path, resume=False) as folder:
        step = folder.step(1, "prune.structured")
        (step.make() / "done.json").write_bytes(content)
        (tmp_path / REPORT).write_bytes(content)
        with pytest.raises(RunFolderError, match=r"done\.json is damaged: run the recipe again, in another folder"):
            step.read_done(Ratio, "ratio")
        with pytest.raises(RunFolderError, match=r"report\.json is damaged"):
            folder.read_report()


def test_a_lock_that_is_no_text_or_lists_no_packages(tmp_path):
    with open_run(tmp_path, resume=False) as folder:
        (tmp_path / LOCK).write_bytes(b"\xff")
        with pytest.raises(RunFolderError, match=r"recipe\.lock\.yaml is damaged"):
            folder.read_lock()
    with pytest.raises(RunFolderError, match=r"lock\.packages is no mapping of names to versions: start a new run"):
        compare({"packages": [1]}, {"packages": {}, "cpu": "", "threads": 1})


def test_a_step_counts_once_marked(tmp_path):
    with open_run(tmp_path, resume=False) as folder:
        step = folder.step(1, "prune.structured")
        (step.workspace / "fit").write_text("half way")
        assert not step.is_done
        step.mark_done({"ratio": {"median": 2, "low": 1, "high": 3}})
        assert step.is_done
        assert step.read_done(Ratio, "ratio") == Ratio(median=2, low=1, high=3)
        assert not (tmp_path / "steps" / "01-prune.structured" / "work").exists()
