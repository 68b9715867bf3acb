"""Exported models with exits: cut into stages, scored, and put back together as one file."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from scipy.special import softmax
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export.compose import StageNames, compose
from adaptkit.export.cut import exit_boundaries, separators, split
from adaptkit.export.onnx import final_onnx
from adaptkit.export.score import add_score
from adaptkit.quantization import StaticQuantization
from adaptkit.technique import Context

RULES = ["confidence", "margin", "entropy"]


class Exits(nn.Module):
    """Two residual blocks, each with a head, and a last layer; gives the last answer first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(3))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        answers = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = torch.relu(x + block(x))
            answers.append(head(x.mean((2, 3))) * 8)
        return answers[2], answers[0], answers[1]


@pytest.fixture(scope="module", params=["float", "int8"])
def exported(request):
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    model = Exits().eval()
    if request.param == "int8":
        context = Context(example_inputs=(x[:2],), calibration=(x, torch.zeros(64, dtype=torch.long)))
        model = StaticQuantization(calibration=64).apply(model, context)
    return final_onnx(model, (x[:2],))


def stages_of(proto):
    boundaries = exit_boundaries(proto.graph, "logits", ["logits_1", "logits_2"])
    return boundaries, split(proto, boundaries, [["logits_1"], ["logits_2"], ["logits"]])


def run(model, **inputs):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_stages_compute_what_the_whole_does(exported):
    boundaries, stages = stages_of(exported)
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    whole = run(exported, input=x)
    crossing = {"input": x}
    for stage, logits in zip(stages, ("logits_1", "logits_2", "logits"), strict=True):
        onnx.checker.check_model(stage, full_check=True)
        given = run(stage, **crossing)
        np.testing.assert_allclose(given[logits], whole[logits], atol=1e-5)
        crossing = {name: value for name, value in given.items() if name in boundaries}


def test_only_what_is_needed_is_in_a_stage(exported):
    _, stages = stages_of(exported)
    heavy = [[node.op_type for node in stage.graph.node if node.op_type in ("Conv", "Gemm")] for stage in stages]
    assert heavy == [["Conv", "Conv", "Gemm"], ["Conv", "Gemm"], ["Conv", "Gemm"]]


def test_integers_cross_where_integers_are_read(exported):
    boundaries, stages = stages_of(exported)
    kinds = {stages[i + 1].graph.input[0].type.tensor_type.elem_type for i in range(len(boundaries))}
    quantized = any(node.op_type == "QuantizeLinear" for node in exported.graph.node)
    assert kinds == ({TensorProto.UINT8} if quantized else {TensorProto.FLOAT})


@pytest.mark.parametrize("rule", RULES)
def test_one_file_leaves_where_the_stages_do(exported, rule):
    _, stages = stages_of(exported)
    stages = [onnx.ModelProto.FromString(stage.SerializeToString()) for stage in stages]
    for number, stage in enumerate(stages[:2], start=1):
        add_score(stage, f"logits_{number}", f"score_{number}", rule, temperature=1.5)
    images = np.random.default_rng(1).standard_normal((30, 1, 3, 8, 8)).astype(np.float32) * 2
    x = images[:, 0]
    scores = [run(stages[0], input=x)["score_1"], _scores_of_second(stages, x)]
    thresholds = [float(np.median(score)) for score in scores]
    names = [StageNames("logits_1", "score_1"), StageNames("logits_2", "score_2"), StageNames("logits")]
    one = compose(stages, names, rule, thresholds)
    onnx.checker.check_model(one)
    session = ort.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
    sure = np.stack([(s <= t) if rule == "entropy" else (s >= t) for s, t in zip(scores, thresholds, strict=True)])
    expected = np.where(sure[0], 0, np.where(sure[1], 1, 2))
    answers = run_all(exported, x)
    for image, place, row in zip(images, expected, answers, strict=True):
        logits, index = session.run(["logits", "exit_index"], {"input": image})
        assert index.tolist() == [place]
        np.testing.assert_allclose(logits[0], row[place], atol=1e-5)
    assert set(expected) == {0, 1, 2}
    least_sure = session.run(["exit_index"], {"input": x})[0]
    assert least_sure.tolist() == [expected.max()]


def _scores_of_second(stages, x):
    first = run(stages[0], input=x)
    name = stages[1].graph.input[0].name
    return run(stages[1], **{name: first[name]})["score_2"]


def run_all(proto, x):
    whole = [run(proto, input=x[i : i + 1]) for i in range(len(x))]
    return [[each[name][0] for name in ("logits_1", "logits_2", "logits")] for each in whole]


@given(
    logits=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
                      elements=st.floats(-30, 30, width=32)),
    rule=st.sampled_from(RULES), temperature=st.sampled_from([0.5, 1.0, 3.0]),
)  # fmt: skip
def test_scores_against_their_formulas(logits, rule, temperature):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", logits.shape[1]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", logits.shape[1]])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    add_score(model, "y", "score", rule, temperature)
    p = softmax(logits.astype(np.float64) / temperature, axis=1)
    ranked = np.sort(p, axis=1)
    expected = {
        "confidence": ranked[:, -1],
        "margin": ranked[:, -1] - ranked[:, -2],
        "entropy": -(p * np.log(np.where(p > 0, p, 1))).sum(1),
    }[rule]
    np.testing.assert_allclose(run(model, x=logits)["score"], expected, atol=2e-5)


def test_a_model_that_carries_two_values_has_no_separator_there():
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"]),
             helper.make_node("Abs", ["a"], ["c"]), helper.make_node("Add", ["b", "c"], ["d"]),
             helper.make_node("Relu", ["d"], ["e"]), helper.make_node("Relu", ["c"], ["side"])]  # fmt: skip
    x, e, side = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "e", "side"))
    graph = helper.make_graph(nodes, "g", [x], [e, side])
    assert separators(graph, "e") == ["d"]
    with pytest.raises(ModelError, match="cannot be cut at exit side: it needs more than one value on the way"):
        exit_boundaries(graph, "e", ["side"])
    with pytest.raises(ModelError, match="cannot be cut at c: what follows needs x too"):
        split(helper.make_model(graph), ["c"], [[], ["e"]])
    with pytest.raises(ModelError, match="it has no value called z"):
        split(helper.make_model(graph), ["z"], [[], ["e"]])


def test_exits_in_the_wrong_order(exported):
    with pytest.raises(ModelError, match="exit logits_1 does not come after the exit before it"):
        exit_boundaries(exported.graph, "logits", ["logits_2", "logits_1"])
