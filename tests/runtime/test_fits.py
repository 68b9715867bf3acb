"""Artifacts that are damaged, or whose files are not the ones that their manifest describes."""

import json

import numpy as np
import onnx
import pytest

from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.export.metadata import EXITS, LABELS, NORMALIZE
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.manifest import MANIFEST, describe
from adaptkit.runtime.stages import Step, run_stages
from benchmarks.fuzzing import artifacts


@pytest.fixture
def folder(tmp_path, request):
    artifacts.KINDS[request.param](tmp_path)
    return tmp_path


def edit(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest["files"] = [file.model_dump() for file in describe(folder)]
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", artifacts.KINDS)
def test_what_was_not_damaged_answers(tmp_path, kind):
    artifacts.KINDS[kind](tmp_path)
    shape = (2, 1, 8, 8) if kind == "frame_cache" else (2, 4)
    assert AdaptedModel.load(tmp_path, 1)(np.zeros(shape, np.float32)).logits.shape == (2, 3)


def rename(*path):
    """Call what stands at a path of the manifest otherwise."""

    def change(manifest):
        *way, last = path
        for key in way:
            manifest = manifest[key]
        manifest[last] = "other"

    return change


def set_input(manifest):
    manifest["stages"][0]["takes"] |= {"shape": [5]}


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        (
            "early_exit",
            rename("stages", 0, "takes", "name"),
            r"0\.onnx takes input, not 'other': export the model again",
        ),
        ("early_exit", rename("stages", 1, "logits"), r"1\.onnx does not give 'other', which its manifest names"),
        ("early_exit", rename("stages", 0, "score"), r"0\.onnx does not give 'other'"),
        (
            "early_exit",
            rename("stages", 0, "takes", "dtype"),
            r"is tensor\(float\) of 4 for a sample, .* tensor\(other\)",
        ),
        (
            "early_exit",
            set_input,
            r"input is tensor\(float\) of 4 for a sample, its manifest says tensor\(float\) of 5",
        ),
        ("activation_cache", rename("stages", 0, "memory", "key"), r"0\.onnx does not give 'other'"),
        ("activation_repeats", rename("stages", 0, "entries", "key"), r"0\.onnx does not give 'other'"),
        (
            "result_cache",
            lambda manifest: manifest.update(dimensions=3),
            r"key is tensor\(float\) of 2 .* says .* of 3",
        ),
        ("result_cache", lambda manifest: manifest.update(capacity=2**31), "less than or equal to 10000000"),
        (
            "hash_cache",
            lambda manifest: manifest["answer"].update(shape=[2**30, 2**30]),
            "an answer of 1073741824 × 1073741824 numbers is none that could be kept",
        ),
    ],
    indirect=["folder"],
)
def test_a_manifest_of_other_files(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


@pytest.mark.parametrize("folder", ["frame_cache"], indirect=True)
def test_a_segment_that_gives_something_else(folder):
    def change(manifest):
        plan = manifest["plan"]
        plan["segments"][0]["gives"]["name"] = "other"

    edit(folder, change)
    with pytest.raises(ModelError, match=r"rest\.onnx takes map, not 'other'|part\.onnx does not give 'other'"):
        AdaptedModel.load(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 10_000, "\x00", ""])
@pytest.mark.parametrize("folder", ["early_exit"], indirect=True)
def test_what_is_no_manifest(folder, content):
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ModelError, match=r"is not a manifest: .*Export the model again"):
        AdaptedModel.load(folder)


@pytest.mark.parametrize("folder", ["hash_cache"], indirect=True)
def test_a_cache_for_which_there_is_no_memory(folder, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr("adaptkit.runtime.result_cache.BitIndex", full)
    with pytest.raises(ModelError, match=r"takes more memory than there is .*smaller caches, or run it on a larger"):
        AdaptedModel.load(folder)


@pytest.mark.parametrize("folder", ["result_cache"], indirect=True)
def test_saved_entries_that_have_no_end(folder):
    (folder / "entries.cache").unlink()
    (folder / "entries.cache").symlink_to("/dev/zero")
    with pytest.warns(UserWarning, match=r"entries\.cache holds no entries of a cache: it is no file.*starts empty"):
        AdaptedModel.load(folder)


@pytest.mark.parametrize(
    ("key", "note", "message"),
    [
        (NORMALIZE, "{", "is damaged: Expecting"),
        (NORMALIZE, "9" * 5000, "is damaged: Exceeds the limit"),
        (NORMALIZE, "[]", "is damaged: it is no dict"),
        (NORMALIZE, '{"mean": ["x"], "std": [1]}', "is damaged: it has a mean and a deviation"),
        (NORMALIZE, '{"mean": [1], "std": [0]}', "is damaged: it has a mean and a deviation"),
        (NORMALIZE, '{"mean": [1, 2], "std": [1]}', "is damaged: it has a mean and a deviation"),
        (LABELS, "3", "is damaged: it is no list"),
        (LABELS, "[1]", "is damaged: labels are text"),
        (EXITS, "-1", "is damaged: '-1' is no number of exits"),
        (EXITS, "9" * 5000, "is damaged: '9{50}' is no number of exits"),
    ],
)
def test_notes_that_are_damaged(tmp_path, key, note, message):
    artifacts.plain(tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.helper.set_model_props(proto, {key: note})
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=f"the file's note {key} {message}.*Export the model again"):
        AdaptedModel.load(tmp_path)


def test_a_file_that_opens_and_does_not_run(tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 4] input) => (float[N, M] logits)
        <int64[2] wrong = {7, 11}> { logits = Reshape(input, wrong) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    model = AdaptedModel.load(tmp_path)
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run the model: .*Give inputs of the shape"):
        model(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    "second",
    [
        Step(np.zeros((2, 1)), np.zeros((2, 4)), np.ones(2, bool)),
        Step(np.zeros((2, 1)), np.zeros((1, 3)), np.ones(2, bool)),
        Step(np.zeros((2, 1)), np.zeros((2, 3)), np.ones((2, 1), bool)),
    ],
)
def test_stages_that_do_not_answer_sample_by_sample(second):
    first = Step(np.zeros((2, 1)), np.zeros((2, 3)), np.zeros(2, bool))
    with pytest.raises(ModelError, match=r"second answers 2 samples with shape .* export the model again"):
        run_stages(np.zeros((2, 1)), [lambda _: first, lambda _: second], ["first", "second"])


def test_a_message_is_text_whatever_a_damaged_file_holds():
    assert str(AdaptkitError("no \ud800 there")) == "no \\ud800 there"
