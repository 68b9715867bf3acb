"""Peak activation bytes: against an allocator that is told nothing in advance, by hand, and against a real process."""

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from torch import nn

from adaptkit.export.onnx import export_onnx
from adaptkit.profiling.activations import file_peak_activation_bytes, peak_activation_bytes
from adaptkit.profiling.memory import peak_memory


def graph(nodes, inputs, outputs):
    made = [helper.make_node(kind, list(takes), list(gives)) for kind, takes, gives in nodes]
    return helper.make_graph(
        made,
        "g",
        [onnx.ValueInfoProto(name=name) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )


@st.composite
def networks(draw):
    """Random nodes that each read some earlier values and make one or two new ones."""
    names, nodes = ["x"], []
    for number in range(draw(st.integers(1, 8))):
        takes = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        gives = [f"v{number}", *([f"u{number}"] if draw(st.booleans()) else [])]
        nodes.append(("Concat", takes, gives))
        names += gives
    outputs = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=2, unique=True))
    return nodes, outputs, {name: draw(st.integers(0, 50)) for name in names}


def by_allocating(nodes, outputs, sizes):
    """Run the nodes one by one, allocate what each makes, free what nobody will read."""
    there, peak = {"x"}, sizes["x"]
    for number, (_, _, gives) in enumerate(nodes):
        there |= set(gives)
        peak = max(peak, sum(sizes[name] for name in there))
        read_later = {name for _, takes, _ in nodes[number + 1 :] for name in takes}
        there &= read_later | {"x", *outputs}
    return peak


@given(networks())
def test_against_an_allocator(network):
    nodes, outputs, sizes = network
    assert peak_activation_bytes(graph(nodes, ["x"], outputs), sizes) == by_allocating(nodes, outputs, sizes)


@pytest.mark.parametrize(
    ("nodes", "sizes", "peak"),
    [
        # Relu writes over a: x + a while it runs, then y beside them.
        ([("Conv", "x", "a"), ("Relu", "a", "b"), ("Conv", "b", "y")], {"x": 1, "a": 10, "b": 10, "y": 2}, 13),
        # a is read again: Relu needs a place of its own.
        ([("Conv", "x", "a"), ("Relu", "a", "b"), ("Add", "ab", "y")], {"x": 1, "a": 10, "b": 10, "y": 10}, 21),
        # The caller's input is never written over.
        ([("Relu", "x", "y")], {"x": 10, "y": 10}, 20),
        # A view of what is read again takes nothing, and keeps it alive.
        ([("Conv", "x", "a"), ("Reshape", "a", "b"), ("MatMul", "ab", "y")], {"x": 1, "a": 10, "b": 10, "y": 3}, 14),
        # The other addend has another size (it is broadcast): the first one gives its place.
        ([("Conv", "x", "a"), ("Conv", "x", "b"), ("Add", "ba", "y")], {"x": 0, "a": 10, "b": 2, "y": 10}, 12),
        # A chain of three keeps one place.
        ([("Conv", "x", "a"), ("Relu", "a", "b"), ("Exp", "b", "c"), ("Neg", "c", "y")], dict.fromkeys("xabcy", 5), 10),
        # Zero-size values are values.
        ([("Conv", "x", "y")], {"x": 0, "y": 0}, 0),
    ],
)
def test_places_that_are_shared(nodes, sizes, peak):
    assert peak_activation_bytes(graph(nodes, ["x"], ["y"]), sizes) == peak


def test_a_branch_keeps_what_it_reads():
    branch = graph([("Relu", ["a"], ["z"])], [], ["z"])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    whole = graph([("Conv", "x", "a"), ("Conv", "x", "c")], ["x"], ["y"])
    whole.node.append(choice)
    assert peak_activation_bytes(whole, {"x": 1, "a": 10, "c": 100, "y": 1000}) == 1111


def test_quantized_values_are_never_float():
    nodes = [
        ("QuantizeLinear", "x", "q"),
        ("DequantizeLinear", "q", "d"),
        ("DequantizeLinear", "w", "v"),
        ("Conv", "dv", "f"),
        ("QuantizeLinear", "f", "p"),
        ("DequantizeLinear", "p", "y"),
    ]
    sizes = {"x": 40, "q": 10, "d": 40, "v": 1000, "f": 80, "p": 20, "y": 80}
    assert peak_activation_bytes(graph(nodes, ["x"], ["y"]), sizes) == 40 + 20 + 80
    assert peak_activation_bytes(graph([*nodes, ("Conv", "y", "z")], ["x"], ["z"]), sizes | {"z": 1}) == 40 + 10 + 20


def test_the_file_the_graph_and_the_process_agree(tmp_path):
    """Two more images of the batch cost the process what the graph says, give or take its blocks and arena."""
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten())
    path, size = tmp_path / "model.onnx", 256
    export_onnx(model, (torch.zeros(2, 3, size, size),), path)
    one = 4 * size * size
    assert file_peak_activation_bytes(path, 1) == one * (3 + 32 + 32)
    small, large = 2, 10
    more = file_peak_activation_bytes(path, large) - file_peak_activation_bytes(path, small)
    assert more == (large - small) * one * (3 + 32 + 32)
    measured = peak_memory(path, large) - peak_memory(path, small)
    assert 0.8 * more < measured < 2.5 * more
    assert peak_memory(path, small) > path.stat().st_size + small * one * (3 + 32 + 32)
