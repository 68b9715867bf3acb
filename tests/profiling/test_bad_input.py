"""Files that are broken, hostile, huge or odd: one clear error that says what to do, or a right figure."""

import os

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from adaptkit.errors import ModelError, RunFolderError
from adaptkit.export.files import file_bytes, read_model
from adaptkit.export.onnx import export_onnx
from adaptkit.profiling.activations import file_peak_activation_bytes
from adaptkit.profiling.graph import file_cost
from adaptkit.profiling.inputs import random_feeds
from adaptkit.profiling.kernels import _events
from adaptkit.profiling.latency import measure
from adaptkit.profiling.memory import peak_memory
from adaptkit.profiling.parameters import graph_constants
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.session import open_session
from adaptkit.specs import ExportSpec


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, constants=(), inputs=None, domains=()):
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x", ["batch", 4])], [onnx.ValueInfoProto(name="y")], constants
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def beside(where, dims=(4, 4), **places):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, text in {"location": where, **places}.items():
        weight.external_data.add(key=key, value=str(text))
    return weight


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of weights in it, one in a folder inside, and one that is none of its business."""
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    for path in (tmp_path / "secret", inside / "weights", inside / "deep" / "weights"):
        path.write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (inside / "link").symlink_to(tmp_path / "secret")
    return inside


@pytest.mark.parametrize("where", ["../secret", "deep/../../secret", "link", "/etc/hostname", "C:\\secret", ""])
def test_weights_outside_the_folder_are_refused(folder, where):
    path = folder / "model.onnx"
    onnx.save(model([PRODUCT], [beside(where)]), path)
    for read in (read_model, file_bytes, file_cost):
        with pytest.raises(ModelError, match=r"outside its own folder, which is refused: put them beside it"):
            read(path)
    with pytest.raises(ModelError):
        AdaptedModel.load(path)


def test_weights_that_a_constant_inside_a_branch_takes_from_outside(folder):
    constant = helper.make_node("Constant", [], ["w"], value=beside("../secret"))
    branch = helper.make_graph([constant], "b", [], [onnx.ValueInfoProto(name="w")])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    path = folder / "model.onnx"
    onnx.save(model([choice], inputs=[value("c", [], TensorProto.BOOL)]), path)
    with pytest.raises(ModelError, match="outside its own folder"):
        file_bytes(path)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (beside("gone"), r"gone is missing, and model\.onnx has its weights there: copy both files together"),
        (beside("deep"), r"deep is missing"),
        (beside("a\0b"), r"is damaged where it names weights beside it"),
        (beside("weights", offset=32, length=64), r"has 64 bytes, and model\.onnx needs 96 of it: it is cut off"),
        (beside("weights", dims=(40, 40)), r"has 64 bytes, and model\.onnx needs 6,400 of it"),
        (beside("weights", offset="-4"), r"is damaged: offset of weights beside it is '-4'"),
    ],
)
def test_weights_that_are_not_whole(folder, weight, message):
    path = folder / "model.onnx"
    onnx.save(model([PRODUCT], [weight]), path)
    for read in (read_model, file_bytes):
        with pytest.raises(ModelError, match=message):
            read(path)


@pytest.mark.parametrize("where", ["weights", "deep/weights"])
def test_weights_inside_the_folder_count(folder, where):
    path = folder / "model.onnx"
    onnx.save(model([PRODUCT], [beside(where)]), path)
    assert file_bytes(path) == path.stat().st_size + 64
    assert (file_cost(path).macs, file_cost(path).weight_bytes) == (16, 64)
    assert numpy_helper.to_array(read_model(path).graph.initializer[0]).trace() == 4
    assert file_peak_activation_bytes(path) == 2 * 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graph: it is empty or no ONNX file"),
        (b"\x08\x07garbage" * 50, r"is no whole ONNX file \(.*\): export or copy it again"),
        (b"PK\x03\x04 a zip", "is no whole ONNX file|holds no graph"),
    ],
)
def test_what_is_no_onnx_file(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for read in (read_model, file_bytes):
        with pytest.raises(ModelError, match=message):
            read(path)
    with pytest.raises(ModelError, match="ONNX Runtime cannot open"):
        AdaptedModel.load(path)


def test_a_file_that_was_cut_off(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(nn.Linear(8, 4), (torch.zeros(2, 8),), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="is no whole ONNX file"):
        read_model(path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """A file with a sparse constant, and one with its weights beside it."""
    folder = tmp_path_factory.mktemp("whole")
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 40))
    net[0].weight.data[:, 1:] = 0
    export_onnx(net, (torch.zeros(2, 32),), folder / "one.onnx")
    export_onnx(net, (torch.zeros(2, 32),), folder / "two.onnx", spec=ExportSpec(single_file=False))
    return folder


@given(
    name=st.sampled_from(["one.onnx", "two.onnx"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.integers(0, 3)), min_size=1, max_size=6),
)
@settings(max_examples=150)
def test_damage_of_any_kind_is_read_or_refused(whole_files, name, places):
    content = bytearray((whole_files / name).read_bytes())
    for where, byte, removed in places:
        place = int(where * (len(content) - 1))
        content[place : place + removed] = bytes([byte])
    damaged = whole_files / f"damaged-{name}"
    damaged.write_bytes(bytes(content))
    for read in (read_model, file_bytes):
        found = _read_or_refusal(read, damaged)
        assert isinstance(found, onnx.ModelProto | int) or "\n" not in found.strip() != ""


def _read_or_refusal(read, path):
    try:
        return read(path)
    except ModelError as refusal:
        return str(refusal)


@pytest.mark.parametrize(("dims", "places"), [([2**40, 4], [0, 1]), ([4, 4], [0, 99]), ([4, 4], [0])])
def test_sparse_constants_that_do_not_fit(tmp_path, dims, places):
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    proto = model([PRODUCT])
    indices = numpy_helper.from_array(np.array(places), "places")
    proto.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=dims))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"is damaged, its constants do not fit"):
        read_model(tmp_path / "model.onnx")


def test_a_profile_that_onnx_runtime_could_not_write(tmp_path):
    """As on a full disk: ONNX Runtime says nothing, and the file ends somewhere."""
    for path, content in ((tmp_path / "half.json", '[{"name": '), (tmp_path / "none.json", None)):
        if content:
            path.write_text(content)
        with pytest.raises(RunFolderError, match=r"could not write its profile into .*: free some space there"):
            _events(path)


def test_names_that_are_no_text(tmp_path):
    proto = model([PRODUCT], [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")])
    proto.graph.node[0].name = "named"
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString().replace(b"named", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(ModelError, match="is damaged, names in it are no text: export or copy it again"):
        read_model(tmp_path / "model.onnx")


def test_a_file_that_opens_and_cannot_run(tmp_path):
    wrong = numpy_helper.from_array(np.array([7, 11]), "wrong")
    weight = numpy_helper.from_array(np.ones((11, 3), np.float32), "w")
    nodes = [helper.make_node("Reshape", ["x", "wrong"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    onnx.save(model(nodes, [wrong, weight]), tmp_path / "model.onnx")
    for run in (lambda path: measure([path]), file_cost):
        with pytest.raises(ModelError, match=r"ONNX Runtime cannot run the model: .*Give inputs of the shape"):
            run(tmp_path / "model.onnx")


def test_a_file_over_2_gb_is_not_even_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 3 * 10**9)
    with pytest.raises(ModelError, match=r"has 3\.0 GB, and .* at most 2 GB: keep the weights beside it"):
        read_model(path)


def test_a_model_of_4_gb_is_measured_without_reading_its_weights(tmp_path, monkeypatch):
    words, width = 2**25 + 2**20, 32
    path = tmp_path / "model.onnx"
    (tmp_path / "table").touch()
    os.truncate(tmp_path / "table", 4 * words * width)
    pick = helper.make_node("Gather", ["table", "x"], ["picked"])
    table = beside("table", dims=(words, width))
    table.name = "table"
    weight = numpy_helper.from_array(np.ones((width, 3), np.float32), "w")
    product = helper.make_node("MatMul", ["picked", "w"], ["y"])
    onnx.save(model([pick, product], [table, weight], inputs=[value("x", ["batch", 5], TensorProto.INT64)]), path)
    monkeypatch.setattr(onnx.external_data_helper, "load_external_data_for_model", None)
    cost = file_cost(path)
    assert (cost.macs, cost.weight_bytes) == (5 * width * 3, 4 * words * width + 4 * width * 3)
    assert file_bytes(path) == path.stat().st_size + 4 * words * width > 4 * 2**30
    assert graph_constants(read_model(path, weights_beside=False).graph) == words * width + width * 3
    assert file_peak_activation_bytes(path) == 5 * 8 + 5 * width * 4 + 5 * 3 * 4
    assert peak_memory(path) < 2**30


@pytest.mark.parametrize("domain", ["mine", ""])
def test_custom_operators(tmp_path, domain):
    path = tmp_path / "model.onnx"
    onnx.save(model([helper.make_node("Magic", ["x"], ["y"], domain=domain)], domains=filter(None, [domain])), path)
    for run in (file_cost, lambda path: measure([path]), AdaptedModel.load):
        with pytest.raises(ModelError, match=r"Magic.* It has no such operator: export the model with standard"):
            run(path)


def test_a_custom_operator_that_is_a_function(tmp_path):
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], domains=["mine"])
    proto.functions.append(function)
    onnx.save(proto, tmp_path / "model.onnx")
    assert file_cost(tmp_path / "model.onnx").macs == 0


def test_several_inputs(tmp_path):
    kinds = [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.BOOL]
    inputs = [value("x", ["batch", 4]), *(value(f"i{kind}", ["batch", 2], kind) for kind in kinds), value("s", [])]
    path = tmp_path / "model.onnx"
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    scaled = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Mul", ["m", "s"], ["y"])]
    onnx.save(model(scaled, [weight], inputs=inputs), path)
    feeds = random_feeds(open_session(path), 3, 0, path.name)
    assert {name: (array.shape, array.dtype.name) for name, array in feeds.items()} == {
        "x": ((3, 4), "float32"),
        "i10": ((3, 2), "float16"),
        "i6": ((3, 2), "int32"),
        "i9": ((3, 2), "bool"),
        "s": ((), "float32"),
    }
    assert file_cost(path).macs == 12
    assert len(measure([path], batch_size=2, repeats=1)[0].samples_ns) == 1
    assert peak_memory(path, 3) > 0
    with pytest.raises(ModelError, match=r"takes 5 inputs \(x, i10, i6, i9, s\), and samples have one"):
        AdaptedModel.load(path)


def test_an_input_of_text(tmp_path):
    path = tmp_path / "model.onnx"
    node = helper.make_node("Identity", ["x"], ["y"])
    onnx.save(model([node], inputs=[value("x", ["batch"], TensorProto.STRING)]), path)
    with pytest.raises(ModelError, match=r"input x is tensor\(string\); adaptkit makes inputs of numbers only"):
        measure([path])


def test_free_dimensions(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model([helper.make_node("Relu", ["x"], ["y"])], inputs=[value("x", ["batch", 3, "height", None])]), path)
    for run in (file_cost, lambda path: measure([path])):
        with pytest.raises(ModelError, match=r"free dimensions besides the batch: height, .*Give the shape of a"):
            run(path)


def test_dimensions_of_zero(tmp_path):
    path = tmp_path / "model.onnx"
    weight = numpy_helper.from_array(np.zeros((0, 3), np.float32), "w")
    onnx.save(model([PRODUCT], [weight], inputs=[value("x", ["batch", 0])]), path)
    cost = file_cost(path)
    assert (cost.macs, cost.weight_bytes, cost.nodes[0].activation_bytes) == (0, 0, 12)
    assert file_peak_activation_bytes(path) == 12
    assert len(measure([path], repeats=2)[0].samples_ns) == 2
    assert peak_memory(path) > 0
