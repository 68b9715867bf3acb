"""`adaptkit profile`, with known figures."""

import json
import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from adaptkit.profiling import summary
from adaptkit.profiling.named import Sample
from adaptkit.report.schema import Bandwidth, LayerFigures, Machine, Network, Percentiles, Profile
from adaptkit.specs import ProfileSpec

FIGURES = Profile(
    model="<lenet>",
    parameters=11_689_512,
    macs=1_814_073_344,
    bytes=46_800_000,
    latency_ms={"t1_b1": Percentiles(p50=50, p90=60, p99=70)},
    speedup={},
    peak_memory_bytes=120_000_000,
    peak_activation_bytes=4_000_000,
    energy_mj=12.5,
)

TABLE = """\
parameters                                  11.69 M
MACs per sample                             1.814 G
file                                       46.80 MB
latency, 1 thread, batch 1    50.0 ms (p90 60.0 ms)
peak activations                           4.000 MB
peak memory                                120.0 MB
energy per sample (estimate)                12.5 mJ
"""


MACHINE = Machine(
    threads=1, gflops=100, int8_gops=400, bandwidths=[Bandwidth(bytes=1_000_000, gb_per_s=10)], start_us=2
)
NETWORK = Network(
    file="lenet.onnx",
    batch_size=1,
    call_us=120,
    kernels_us=100,
    layers=[
        LayerFigures(
            name="<conv>", kind="Conv", parameters=1_500, macs=450_000, bytes=9_000, time_us=90, share=0.9, gflops=10,
            intensity=100, bound="compute", of_roof=0.1, reason="kernel without fast path: not on blocks of channels",
        ),
        LayerFigures(name="norm", kind="fused into others", parameters=6, macs=0, bytes=24),
    ],
    uncounted_ops=["LSTM"],
)  # fmt: skip
LAYERS = """
lenet.onnx, batch 1: 0.100 ms in kernels, 0.0200 ms between them (while profiled); operations not counted: LSTM
layer             kernels  parameters     MACs     bytes     time   share  GFLOP/s  FLOP/B       of roof
<conv>               Conv     1.500 k  450.0 k  9.000 kB  90.0 µs  90.0 %     10.0     100  10 % compute  kernel \
without fast path: not on blocks of channels
norm    fused into others           6        –      24 B        –       –        –       –             –

this machine, measured with 1 thread: 100 GFLOP/s in float, 400 Gop/s in 8 bits; 10.0 GB/s over 1.000 MB; 2.00 µs to \
start a kernel
"""


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the profiler."""
    found: list[tuple[object, ...]] = []

    def profile_file(spec, profile, *, layers, samples):
        found.append((spec, profile, layers, samples))
        extra = {"machine": MACHINE, "networks": [NETWORK]} if layers else {}
        return FIGURES.model_copy(update=extra)

    monkeypatch.setattr(summary, "profile_file", profile_file)
    return found


def test_the_table(run, asked):
    result = run("profile", "zoo:lenet5_digits", "--threads", "1", "--threads", "2", "--batch-size", "16")
    assert (result.exit_code, result.stdout) == (0, TABLE)
    assert asked == [("zoo:lenet5_digits", ProfileSpec(threads=(1, 2), batch_sizes=(16,)), False, [])]


@pytest.mark.usefixtures("asked")
def test_the_table_of_layers(run):
    result = run("profile", "x.onnx", "--layers")
    assert (result.exit_code, result.stdout) == (0, TABLE + LAYERS)


def test_json_and_quiet(run, asked):
    found = Profile.model_validate_json(run("profile", "x.onnx", "--json").stdout)
    assert (found.networks, found.parameters) == ([NETWORK], 11_689_512)
    assert run("profile", "x.onnx", "-q").stdout == ""
    assert [layers for _, _, layers, _ in asked] == [True, False]


@pytest.mark.usefixtures("asked")
def test_the_page_escapes_names_and_loads_nothing(run, tmp_path):
    page = tmp_path / "page.html"
    assert run("profile", "x.onnx", "--html", str(page), "-q").exit_code == 0
    text = page.read_text()
    assert "&lt;conv&gt;" in text
    assert "<conv>" not in text
    assert not re.search(r"(src|href)=|url\(|@import", text)
    assert '<th scope="col">why slow</th>' in text
    assert re.search(r'<svg[^>]*role="img"[^>]*><title>Roofline of 1 layers', text)
    assert "Most time goes to &lt;conv&gt; (90 %)." in text


def test_shapes_of_samples(run, asked):
    assert run("profile", "x.onnx", "--input", "3x8x8", "--input", "16:int64").exit_code == 0
    assert asked[0][3] == [Sample((3, 8, 8)), Sample((16,), "int64")]
    for wrong in ("3,8", "x", "3x8:text", "-3"):
        result = run("profile", "x.onnx", f"--input={wrong}")
        assert (result.exit_code, "is not the shape of a sample: write its sizes" in result.stderr) == (2, True)


def test_a_model_that_is_not_there(run):
    result = run("profile", "nothing", "--json")
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (2, 2)
    assert "nothing is not there: give an ONNX file" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize("command", [["profile"], ["compare", "good.onnx"]])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("damaged.onnx", "is no whole ONNX file"),
        ("outside.onnx", "outside its own folder, which is refused"),
        ("free.onnx", "free dimensions besides the batch: height. Give the shape of a sample"),
        ("custom.onnx", "It has no such operator"),
    ],
)
def test_bad_files_end_in_one_clear_error(run, command, name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files()
    result = run(*command, name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def write_files():
    """Write good.onnx, and four that are not."""

    def save(name, node, height=4, constants=()):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", height])
        graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")], constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), name)

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret")
    save("good.onnx", helper.make_node("Relu", ["x"], ["y"]))
    save("free.onnx", helper.make_node("Relu", ["x"], ["y"]), "height")
    save("custom.onnx", helper.make_node("Magic", ["x"], ["y"], domain="mine"))
    save("outside.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), constants=[weight])
    Path("damaged.onnx").write_bytes(Path("good.onnx").read_bytes()[:-9])
