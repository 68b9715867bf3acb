"""The table of layers of one file: what counts to which layer, and why one is slow."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from adaptkit.export.files import read_model
from adaptkit.export.onnx import export_onnx, to_onnx
from adaptkit.profiling.graph import graph_cost
from adaptkit.profiling.kernels import Kernel, KernelRun, _sorted_out
from adaptkit.profiling.layer_profile import profile_network
from adaptkit.profiling.machine import measure_machine
from adaptkit.profiling.parameters import graph_constants
from adaptkit.profiling.slow import Facts, roof, slow_reason
from adaptkit.quantization.static import StaticQuantization
from adaptkit.report.schema import Bandwidth, Machine
from adaptkit.technique import Context

MACHINE = Machine(
    threads=1,
    gflops=100,
    int8_gops=400,
    bandwidths=[Bandwidth(bytes=1_000_000, gb_per_s=50), Bandwidth(bytes=100_000_000, gb_per_s=10)],
    start_us=2,
)


class Net(nn.Module):
    """A convolution with its normalization, attention, a product with a bias of its own kernel, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.inner = nn.Linear(16, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x))).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.inner(x).mean(1))


@pytest.fixture(scope="module")
def proto():
    return to_onnx(Net().eval(), (torch.zeros(2, 3, 8, 8),))


def test_everything_counts_to_a_layer_once(proto):
    network = profile_network(proto, MACHINE, name="net.onnx", repeats=3)
    layers = {layer.name: layer for layer in network.layers}
    tokens = 64
    assert {name: layer.macs for name, layer in layers.items() if layer.macs} == {
        "stem": tokens * 16 * 27,
        "attention": tokens * 16 * 16 * 4 + 2 * tokens * tokens * 16,
        "inner": tokens * 16 * 32,
        "head": 32 * 10,
    }
    assert layers["stem"].parameters == 16 * 27 + 16
    assert layers["inner"].parameters == 16 * 32 + 32
    # Of the biases one is zero, which the exporter leaves out; a scale of one number is a constant like others.
    assert layers["attention"].parameters == 4 * 16 * 16 + 3 * 16 + 1
    assert sum(layer.parameters for layer in network.layers) == graph_constants(proto.graph)
    assert sum(layer.macs for layer in network.layers) == graph_cost(proto).macs
    assert sum(layer.share or 0 for layer in network.layers) == pytest.approx(1)
    assert sum(layer.time_us or 0 for layer in network.layers) == pytest.approx(network.kernels_us)
    assert network.kernels_us < network.call_us
    assert all(layers[name].time_us for name in ("stem", "attention", "inner", "head"))
    assert not any("MatMul" in name for name in layers)
    stem = layers["stem"]
    assert stem.bytes >= 4 * (3 * 64 + 16 * 64 + stem.parameters)
    assert stem.gflops == pytest.approx(2 * stem.macs / 1000 / stem.time_us)
    assert stem.intensity == pytest.approx(2 * stem.macs / stem.bytes)


def test_a_batch_multiplies_work_and_not_macs(proto):
    one, four = (
        {layer.name: layer for layer in profile_network(proto, MACHINE, name="n", batch_size=size, repeats=2).layers}
        for size in (1, 4)
    )
    assert one["stem"].macs == four["stem"].macs
    weights = 4 * one["stem"].parameters
    assert four["stem"].bytes - weights == pytest.approx(4 * (one["stem"].bytes - weights), rel=0.01)
    assert four["stem"].gflops == pytest.approx(4 * 2 * one["stem"].macs / 1000 / four["stem"].time_us)


def test_nodes_without_names_of_their_own():
    weights = [numpy_helper.from_array(np.ones((4, 4), np.float32), f"w{number}") for number in range(3)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("MatMul", ["a", "w1"], ["b"], name="same"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="same"),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="y")], weights)
    found = profile_network(helper.make_model(graph, ir_version=10), MACHINE, name="n", repeats=2)
    assert [(layer.name, layer.macs, layer.parameters) for layer in found.layers] == [
        ("MatMul_0", 16, 16),
        ("same", 16, 16),
        ("same_2", 16, 16),
    ]


def test_a_quantized_file(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Flatten())
    context = Context(
        example_inputs=(torch.zeros(2, 3, 8, 8),), calibration=(torch.randn(32, 3, 8, 8), torch.zeros(32))
    )
    quantized = StaticQuantization().apply(model.eval(), context)
    export_onnx(quantized, (torch.zeros(2, 3, 8, 8),), tmp_path / "int8.onnx")
    network = profile_network(read_model(tmp_path / "int8.onnx"), MACHINE, name="int8.onnx", repeats=2)
    layers = {layer.name: layer for layer in network.layers}
    assert layers["2"].kind == "QLinearConv"
    assert layers["2"].parameters == 16 * 16 * 9 + 16
    # The weights are one byte each, and the activations are never float.
    assert layers["2"].bytes < 4 * (16 * 16 * 9 + 2 * 16 * 64)


def test_what_was_not_counted_is_listed():
    weights = [
        numpy_helper.from_array(np.ones((1, 16, 4), np.float32), "w"),
        numpy_helper.from_array(np.ones((1, 16, 4), np.float32), "r"),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["time", 2, 4])
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")], weights)
    network = profile_network(helper.make_model(graph, ir_version=10), MACHINE, name="n", repeats=2)
    assert network.uncounted_ops == ["LSTM"]
    assert [(layer.name, layer.parameters, layer.macs) for layer in network.layers] == [("LSTM_0", 128, 0)]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(("Conv",), 10**6, 10_000, 25.0, blocked=True), ""),
        (Facts(("Conv",), 10**6, 10_000, None), ""),
        (
            Facts(("Gemm",), 10**5, 400_000, 50.0, weight_bytes=400_000, all_weight_bytes=50_000_000),
            "memory-bound: 8.00 GB/s, 0.500 FLOPs for a byte",
        ),
        (Facts(("Relu",), 0, 500_000, 12.0), "memory-bound: 41.7 GB/s, no FLOPs for a byte"),
        (Facts(("Add", "Mul"), 0, 100, 15.0, kernels=2), "overhead-bound: so small that starting it dominates"),
        (Facts(("ReorderOutput",), 0, 5_000, 90.0), "moves or converts data, computes nothing"),
        (Facts(("Conv",), 10**6, 10_000, 25.0, blocked=True, among_integers=True), "float between 8-bit layers"),
        (
            Facts(("Conv",), 10**6, 10_000, 100.0, depthwise=True),
            "depthwise: each byte is used for one channel only (20 % of the compute roof)",
        ),
        (
            Facts(("Conv",), 10**6, 10_000, 100.0),
            "kernel without fast path: not on blocks of channels (20 % of the compute roof)",
        ),
        (
            Facts(("ConvTranspose",), 10**6, 10_000, 100.0),
            "kernel without fast path: transposed convolution (20 % of the compute roof)",
        ),
        (
            Facts(("Conv",), 10**6, 10_000, 100.0, channels=(16, 13), blocked=True),
            "13 channels: kernels work on blocks of 16 (20 % of the compute roof)",
        ),
        (Facts(("MatMul",), 10**6, 10_000, 100.0), "no reason found (20 % of the compute roof)"),
        (Facts(("Softmax",), 0, 50_000, 100.0), "kernel slower than its bytes (1 % of the memory roof)"),
    ],
)
def test_why_a_layer_is_slow(facts, reason):
    assert slow_reason(facts, MACHINE) == reason


def test_weights_of_a_large_network_come_from_memory():
    layer = Facts(("Gemm",), 1000, 400_000, 50.0, weight_bytes=300_000, all_weight_bytes=400_000)
    assert roof(layer, MACHINE).time_us == pytest.approx(300 / 50 + 100 / 50)
    large = Facts(("Gemm",), 1000, 400_000, 50.0, weight_bytes=300_000, all_weight_bytes=50_000_000)
    assert roof(large, MACHINE).time_us == pytest.approx(300 / 10 + 100 / 50)


def test_kernels_are_sorted_out_of_a_profile():
    """Two calls, the first for warming up; a kernel in a loop runs twice in one."""

    def event(name, start, duration, cat="Node", **args):
        return {"name": name, "ts": start, "dur": duration, "cat": cat, "args": args}

    events = []
    for start, slower in ((0, 100), (1000, 1)):
        events += [
            event("a_kernel_time", start, 5 * slower, op_name="Conv", activation_size="8", output_size="4"),
            event("b_kernel_time", start + 10, 3 * slower, op_name="Add"),
            event("b_kernel_time", start + 20, 3 * slower, op_name="Add"),
            event("a_fence_before", start, 99),
            event("model_run", start, 40 * slower, cat="Session"),
        ]
    run = _sorted_out(events, warmup=1, repeats=1)
    assert run == KernelRun([Kernel("a", "Conv", 12, [5.0]), Kernel("b", "Add", 0, [3.0, 3.0])], 1, 40.0)
    assert [run.microseconds(kernel) for kernel in run.kernels] == [5, 6]
    assert run.all_microseconds == 11


def test_the_machine_is_measured():
    machine = measure_machine()
    assert machine.gflops > 0.1
    assert machine.int8_gops > 0.1
    assert [entry.bytes for entry in machine.bandwidths] == sorted(entry.bytes for entry in machine.bandwidths)
    assert all(0.1 < entry.gb_per_s < 10_000 for entry in machine.bandwidths)
    assert 1 <= machine.start_us < 1000
