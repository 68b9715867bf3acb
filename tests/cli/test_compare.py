"""`adaptkit compare`, with known times."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from adaptkit.metrics.file import PathAccuracy
from adaptkit.metrics.measured import Outputs
from adaptkit.profiling import energy, latency, summary
from adaptkit.report.schema import Percentiles, Ratio
from adaptkit_cli import accuracy

RIGHT = {"a.onnx": 90, "b.onnx": 89, "c.onnx": 95}
P50 = {"a.onnx": 6.0, "b.onnx": 2.0, "c.onnx": 9.0}
WIDTHS = {"a.onnx": 1000, "b.onnx": 250, "c.onnx": 4000}


def product_with_a_constant(width: int) -> onnx.ModelProto:
    constant = numpy_helper.from_array(np.zeros((width, 1), np.float32), "w")
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", width])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "product", [x], [y], [constant]), ir_version=10)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in WIDTHS.items():
        onnx.save(product_with_a_constant(width), name)

    def compare(paths, profile):
        keys = [f"t{threads}_b{batch}" for threads in profile.threads for batch in profile.batch_sizes]
        return [
            latency.Comparison(
                {key: Percentiles(p50=P50[path.name], p90=9, p99=10) for key in keys},
                {key: Ratio(median=P50[paths[0].name] / P50[path.name], low=2.5, high=3.5) for key in keys},
                0.0,
            )
            for path in paths
        ]

    assert summary  # imported before: what it takes from the others must not be what stands in for it here
    monkeypatch.setattr(latency, "compare", compare)
    monkeypatch.setattr(
        energy, "energy_per_inference", lambda path, threads: energy.Energy(P50[path.name], "estimate", "")
    )


@pytest.fixture
def accuracies(monkeypatch):
    """Every model is right on its first samples of 100."""

    def measured(path, data):
        right = RIGHT[path.name]
        hits = tuple(number < right for number in range(100))
        return PathAccuracy(("whole",), (100,), (right,), hits), Outputs()

    monkeypatch.setattr(accuracy, "answers_on", measured)


@pytest.mark.usefixtures("files")
def test_the_table(run):
    result = run("compare", "a.onnx", "b.onnx", "--threads", "2", "--batch-size", "8")
    heading, size, *rest = result.stdout.splitlines()
    assert heading.split() == ["A", "B", "B", "against", "A"]
    assert size.startswith("file ")
    assert rest == [
        "parameters                        1.000 k       250               4.00 × fewer",
        "latency p50, 2 threads, batch 8   6.00 ms   2.00 ms  3.00 × faster (2.50–3.50)",
        "energy per sample (estimate)      6.00 mJ   2.00 mJ                3.00 × less",
        "",
        "B dominates A: it is faster, smaller and more frugal, and worse in nothing.",
    ]
    assert len({len(line) for line in (heading, size, *rest[:3])}) == 1


@pytest.mark.usefixtures("files", "accuracies")
def test_accuracy_where_data_is_given(run):
    result = run("compare", "a.onnx", "b.onnx", "--data", "digits")
    (line,) = [line.split() for line in result.stdout.splitlines() if line.startswith("accuracy")]
    assert " ".join(line) == "accuracy 90.00 % 89.00 % 1.00 points lost"
    assert result.stdout.splitlines()[-2:] == [
        "B against A: -1.00 points (95 % interval -3.00 to +0.00); 1 samples lost, 0 gained, McNemar's exact test "
        "p = 1.00: no difference is shown",
        "B dominates A: it is faster, smaller and more frugal, and worse in nothing. Accuracy counts only where a "
        "difference is shown.",
    ]
    found = json.loads(run("compare", "a.onnx", "b.onnx", "--data", "digits", "--json").stdout)
    first, second = found["contenders"]
    assert (first["accuracy"], second["accuracy"], first["against_first"]) == (0.9, 0.89, None)
    assert (first["parameters"], second["parameters"], second["speedup"]["t1_b1"]["median"]) == (1000, 250, 3)
    assert (second["against_first"]["lost"], second["against_first"]["gained"]) == (1, 0)
    assert [one["bytes"] for one in (first, second)] == [Path(one["file"]).stat().st_size for one in (first, second)]


@pytest.mark.usefixtures("files", "accuracies")
def test_three_and_the_page(run, tmp_path):
    result = run("compare", "b.onnx", "a.onnx", "c.onnx", "--data", "digits", "--html", "page.html")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["A", "B", "C", "B", "against", "A", "C", "against", "A"]
    frugal = "faster, smaller and more frugal"
    assert lines[-1] == (
        f"A dominates B ({frugal}); B dominates C ({frugal}); A is dominated by none. "
        "Accuracy counts only where a difference is shown."
    )
    assert sum("McNemar" in line for line in lines) == 2
    page = (tmp_path / "page.html").read_text()
    titles = re.findall(r"<svg[^>]*role=\"img\"[^>]*><title>(.*?)</title>", page)
    assert [title.partition(".")[0] for title in titles] == [
        "Accuracy against latency, 1 thread, batch 1",
        "Accuracy against file size",
        "Accuracy against energy per sample, estimate",
    ]
    assert "B a.onnx: 6.00 ms, 90.00 %, not beaten" in titles[0]
    assert lines[-1].replace("'", "&#39;") in page


@pytest.mark.usefixtures("files")
def test_a_file_that_is_not_there(run):
    result = run("compare", "a.onnx", "d.onnx")
    assert (result.exit_code, result.stderr) == (2, "Error: no such file or folder: d.onnx\n")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("names", [["a.onnx"], [], ["a.onnx"] * 27])
def test_too_few_or_too_many(run, names):
    result = run("compare", *names)
    assert result.exit_code == 2
    assert "give two artifacts or more, at most 26" in result.stderr


@pytest.mark.usefixtures("files")
def test_threads_are_positive(run):
    result = run("compare", "a.onnx", "b.onnx", "--threads", "0")
    assert result.exit_code == 2
    assert "Invalid value for '--threads': 0 is not in the range x>=1." in result.stderr
