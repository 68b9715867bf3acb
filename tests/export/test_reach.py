"""How far parts of a graph look, against changing one place after the other."""

import numpy as np
import onnx
import pytest
from onnx import helper

from adaptkit.export.cut import split
from adaptkit.export.reach import Reach, free_size, map_cuts, reaches
from adaptkit.runtime.session import open_session
from tests.runtime.frame_networks import NETWORKS, Graph


def seen_changes(proto, value, place, row_or_column):
    """Change a row or a column of the input; say which ones of a value change."""
    part = free_size(split(proto, [value], [[], ["logits"]])[0])
    x = np.random.default_rng(1).normal(size=(2, 3, 24, 24)).astype(np.float32)
    x[1] = x[0]
    x[(1, slice(None), *((place, slice(None)) if row_or_column == 0 else (slice(None), place)))] += 7
    before, after = open_session(part.SerializeToString(), 1).run([value], {"input": x})[0]
    return np.flatnonzero((before != after).any(axis=(0, 2 - row_or_column)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_value_sees_what_its_reach_says(name):
    """Never more; and along one of the axes all of it, or a change would be spread too far."""
    proto = NETWORKS[name]()
    found = reaches(proto.graph, "input")
    for value in map_cuts(proto):
        reach, place = found[value], 12
        expected = {p for p in range(24) if p * reach.stride - reach.before <= place <= p * reach.stride + reach.after}
        seen = [set(seen_changes(proto, value, place, axis).tolist()) for axis in (0, 1)]
        assert all(one <= expected for one in seen)
        assert {min(expected), max(expected)} & set.union(*seen)


def test_cuts_are_behind_activations_and_before_what_mixes_places():
    proto = NETWORKS["residual"]()
    kinds = {node.output[0]: node.op_type for node in proto.graph.node}
    assert [kinds[name] for name in map_cuts(proto)] == ["Relu", "MaxPool", "Relu", "Relu", "Relu"]


def test_a_gate_over_all_places_ends_it():
    """A squeeze-and-excitation depends on the whole map."""
    g = Graph()
    x = g.relu(g.conv("input", 8))
    gate = g.node("Sigmoid", [g.node("GlobalAveragePool", [x], 8)], 8)
    proto = g.finish(g.relu(g.conv(g.node("Mul", [x, gate], 8), 8)))
    assert map_cuts(proto) == [x]


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "ceil_mode": 1, "strides": [2, 2]},
        {"kernel_shape": [2, 1], "strides": [2, 1]},
        {"kernel_shape": [3, 3]},
    ],
)
def test_windows_whose_places_do_not_fit_are_no_cuts(window):
    """Padding that is not written down, a window over the edge, unlike strides, a map that shrinks."""
    g = Graph()
    x = g.node("MaxPool", ["input"], 3, **window)
    assert map_cuts(g.finish(g.relu(x))) == []


def test_a_constant_that_differs_from_place_to_place_is_no_part():
    g = Graph(size=8)
    x = g.relu(g.conv("input", 4))
    moved = g.node("Add", [x, g.constant(np.zeros((1, 1, 8, 8), np.float32))], 4)
    assert map_cuts(g.finish(g.relu(moved))) == [x]


def test_reaches_add_up():
    """Two windows behind each other, place by place."""
    reach = Reach().then(2, 1, 2).then(3, 1, 0)
    first = {q: set(range(2 * q - 1, 2 * q + 3)) for q in range(-9, 30)}
    for p in range(4):
        wanted = set.union(*(first[q] for q in range(3 * p - 1, 3 * p + 1)))
        assert set(range(p * reach.stride - reach.before, p * reach.stride + reach.after + 1)) == wanted


def test_free_size_leaves_the_model_as_it_is():
    proto = NETWORKS["mobile"]()
    before = proto.SerializeToString()
    part = split(proto, map_cuts(proto)[:1], [[], ["logits"]])[0]
    shape = free_size(part).graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [0, 3, 0, 0]
    assert proto.SerializeToString() == before


def test_nothing_is_local_of_a_vector():
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    assert set(reaches(graph, "x")) == {"x"}
