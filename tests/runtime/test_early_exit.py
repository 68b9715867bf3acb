"""Stages on ONNX Runtime: who leaves where, what is refused, and two machines."""

import json
import socket
import subprocess
import sys
import threading

import numpy as np
import onnxruntime as ort
import pytest
import torch
from scipy.special import softmax
from torch import nn

from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import final_onnx
from adaptkit.export.staged import make_stages, write_single_file, write_stages
from adaptkit.quantization import StaticQuantization
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from tests.export.test_stages import Exits

RULES = ["confidence", "entropy"]
TEMPERATURES = [1.0, 2.0]


@pytest.fixture(scope="module", params=["float", "int8"])
def proto(request):
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    model: nn.Module = Exits().eval()
    if request.param == "int8":
        context = Context(example_inputs=(x[:2],), calibration=(x, torch.zeros(64, dtype=torch.long)))
        model = StaticQuantization(calibration=64).apply(model, context)
    return final_onnx(model, (x[:2],))


@pytest.fixture(params=RULES)
def rule(request):
    return request.param


@pytest.fixture
def limits(proto, rule):
    """Half of the samples leave at the first exit, half would at the second."""
    return np.median(scores(proto, rule, images(50))[0], axis=0).tolist()


@pytest.fixture
def folder(proto, rule, limits, tmp_path):
    stages, names = make_stages(proto, ["logits_1", "logits_2"], rule, TEMPERATURES)
    write_stages(stages, names, rule, limits, tmp_path)
    write_single_file(stages, names, rule, limits, tmp_path / "single.onnx")
    return tmp_path


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32) * 2


def scores(proto, rule, x):
    """How sure the two exits are, and what all three answer, sample by sample."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = [session.run(["logits_1", "logits_2", "logits"], {"input": image[None]}) for image in x]
    found = []
    for logits in answers:
        p = [softmax(each[0] / temperature) for each, temperature in zip(logits, TEMPERATURES, strict=False)]
        found.append([each.max() if rule == "confidence" else -(each * np.log(each)).sum() for each in p])
    return np.array(found), np.array(answers)[:, :, 0]


def expected(proto, rule, limits, x):
    """The first exit that is sure enough, and its answer."""
    found, answers = scores(proto, rule, x)
    sure = found >= limits if rule == "confidence" else found <= limits
    places = np.where(sure[:, 0], 0, np.where(sure[:, 1], 1, 2))
    return places, answers[np.arange(len(x)), places]


@pytest.mark.parametrize("batch", [1, 2, 50])
def test_every_sample_leaves_where_it_is_sure(folder, proto, rule, limits, batch):
    model, x = AdaptedModel.load(folder, threads=1), images(50)
    places, answers = expected(proto, rule, limits, x)
    results = [model(x[i : i + batch]) for i in range(0, 50, batch)]
    assert np.concatenate([result.path for result in results]).tolist() == places.tolist()
    np.testing.assert_allclose(np.concatenate([result.logits for result in results]), answers, atol=1e-5)
    assert set(places) == {0, 1, 2}
    assert {each.name: each.samples for each in model.statistics} == {
        f"exit {k}": int((places == k).sum()) for k in range(3)
    }


def test_one_file_agrees_sample_by_sample(folder):
    model, x = AdaptedModel.load(folder, threads=1), images(40, seed=1)
    session = ort.InferenceSession(folder / "single.onnx", providers=["CPUExecutionProvider"])
    for image in x:
        logits, index = session.run(["logits", "exit_index"], {"input": image[None]})
        result = model(image[None])
        assert index.tolist() == result.path.tolist()
        np.testing.assert_allclose(logits, result.logits, atol=1e-6)


def test_later_stages_see_only_what_stayed(folder):
    model = AdaptedModel.load(folder, threads=1)
    result = model(images(50))
    assert list(result.seconds) == [f"exit {k}" for k in range(result.path.max() + 1)]
    assert (np.diff([result.waited[result.path == k].max() for k in range(3)]) > 0).all()
    assert sum(result.seconds.values()) == pytest.approx(result.waited.max())


def test_from_many_threads(folder):
    model, x = AdaptedModel.load(folder, threads=1), images(20)
    alone = [model(image[None]).logits for image in x]
    wrong = []

    def work():
        for image, answer in zip(x, alone, strict=True):
            if not np.array_equal(model(image[None]).logits, answer):
                wrong.append(image)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(each.samples for each in model.statistics) == 17 * 20


SECOND_MACHINE = """
import json, socket, sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
from adaptkit.runtime.folder import read_manifest
folder = Path(sys.argv[1])
stage = read_manifest(folder).stages[1]
session = ort.InferenceSession(folder / stage.file)
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as wire:
    received = wire.makefile("rb").read(stage.takes.bytes)
    x = np.frombuffer(received, stage.takes.dtype).reshape(1, *stage.takes.shape)
    wire.sendall(session.run([stage.logits], {stage.takes.name: x})[0].tobytes())
"""


def test_the_second_stage_on_another_machine(folder, proto):
    """Its input goes over a socket, as many bytes as the manifest says."""
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    first = ort.InferenceSession(folder / stages[0]["file"], providers=["CPUExecutionProvider"])
    x = images(1)
    crossing = first.run([stages[0]["gives"]["name"]], {"input": x})[0]
    assert crossing.nbytes == stages[0]["gives"]["bytes"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", SECOND_MACHINE, str(folder), str(server.getsockname()[1])]
        with subprocess.Popen(command) as other:
            wire, _ = server.accept()
            with wire, wire.makefile("rb") as answer:
                wire.sendall(crossing.tobytes())
                logits = np.frombuffer(answer.read(16), np.float32)
            assert other.wait(60) == 0
    whole = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(logits, whole.run(["logits_2"], {"input": x})[0][0], atol=1e-5)


def _edit(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=7), "is of version 7, this adaptkit reads version 1"),
        (lambda m: m.update(rule="mood"), "is wrong at rule"),
        (lambda m: m.update(kind="guess"), "is of kind 'guess', this adaptkit runs early_exit"),
        (lambda m: m["files"][0].update(name="../x.onnx"), r"is wrong at files\.0\.name"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "is not the file that manifest.json names"),
        (lambda m: m["files"].append({"name": "stages/9.onnx", "sha256": "0" * 64}), r"9\.onnx is missing"),
        (lambda m: m["stages"][1].update(file="stages/9.onnx"), r"stages/9\.onnx is not among the files"),
        (lambda m: m["stages"][0].update(threshold=None), "has no score or no threshold"),
        (lambda m: m["stages"].pop(1), r"stages/2.onnx does not take what stages/0.onnx gives"),
        (lambda m: m["stages"].clear(), "is wrong at stages"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    _edit(folder, change)
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


def test_a_broken_manifest(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json is not a manifest: "):
        AdaptedModel.load(folder)


def test_bad_batches(folder):
    model = AdaptedModel.load(folder)
    with pytest.raises(DataError, match="the batch is empty"):
        model(images(0))
    with pytest.raises(DataError, match="holds NaN"):
        model(np.full((1, 3, 8, 8), np.nan, np.float32))


def test_nan_on_the_way_is_no_answer(tmp_path):
    model = Exits().eval()
    with torch.no_grad():
        model.blocks[1].weight[:] = float("nan")
    proto = final_onnx(model, (torch.zeros(2, 3, 8, 8),))
    stages, names = make_stages(proto, ["logits_1", "logits_2"], "confidence", [1.0, 1.0])
    write_stages(stages, names, "confidence", [0.6, 0.6], tmp_path)
    with pytest.raises(DataError, match="answers with NaN or infinity"):
        AdaptedModel.load(tmp_path)(images(50))
