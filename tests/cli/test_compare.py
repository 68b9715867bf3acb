"""`adaptkit compare`, with known times."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from adaptkit.metrics.file import PathAccuracy
from adaptkit.profiling import latency
from adaptkit.report.schema import Percentiles, Ratio
from adaptkit_cli import accuracy

RIGHT = {"a.onnx": 90, "b.onnx": 89}


def product_with_a_constant(width: int) -> onnx.ModelProto:
    constant = numpy_helper.from_array(np.zeros((width, 1), np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "product", [x], [y], [constant]))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in (("a.onnx", 1000), ("b.onnx", 250)):
        onnx.save(product_with_a_constant(width), name)

    def compare(paths, profile):
        assert [path.name for path in paths] == ["a.onnx", "b.onnx"]
        keys = [f"t{threads}_b{batch}" for threads in profile.threads for batch in profile.batch_sizes]
        return [
            latency.Comparison(
                {key: Percentiles(p50=p50, p90=9, p99=10) for key in keys},
                {key: Ratio(median=6 / p50, low=2.5, high=3.5) for key in keys},
                0.0,
            )
            for p50 in (6.0, 2.0)
        ]

    monkeypatch.setattr(latency, "compare", compare)


@pytest.mark.usefixtures("files")
def test_the_table(run):
    result = run("compare", "a.onnx", "b.onnx", "--threads", "2", "--batch-size", "8")
    heading, size, *rest = result.stdout.splitlines()
    assert heading.split() == ["A", "B", "B", "against", "A"]
    assert size.startswith("file ")
    assert rest == [
        "parameters                        1.000 k       250               4.00 × fewer",
        "latency p50, 2 threads, batch 8   6.00 ms   2.00 ms  3.00 × faster (2.50–3.50)",
    ]
    assert len({len(line) for line in (heading, size, *rest)}) == 1


@pytest.mark.usefixtures("files")
def test_accuracy_where_data_is_given(run, monkeypatch):
    monkeypatch.setattr(
        accuracy, "accuracy_on", lambda path, data: PathAccuracy(("whole",), (100,), (RIGHT[path.name],))
    )
    result = run("compare", "a.onnx", "b.onnx", "--data", "digits")
    (line,) = [line.split() for line in result.stdout.splitlines() if line.startswith("accuracy")]
    assert " ".join(line) == "accuracy 90.00 % 89.00 % 1.00 points lost"
    found = json.loads(run("compare", "a.onnx", "b.onnx", "--data", "digits", "--json").stdout)
    assert (found["accuracy"], found["parameters"], found["speedup"]["t1_b1"]["median"]) == (
        [0.9, 0.89],
        [1000, 250],
        3,
    )
    assert found["bytes"] == [Path(name).stat().st_size for name in found["files"]]


@pytest.mark.usefixtures("files")
def test_a_file_that_is_not_there(run):
    result = run("compare", "a.onnx", "c.onnx")
    assert (result.exit_code, result.stderr) == (2, "Error: no such file or folder: c.onnx\n")


@pytest.mark.usefixtures("files")
def test_threads_are_positive(run):
    result = run("compare", "a.onnx", "b.onnx", "--threads", "0")
    assert result.exit_code == 2
    assert "Invalid value for '--threads': 0 is not in the range x>=1." in result.stderr
