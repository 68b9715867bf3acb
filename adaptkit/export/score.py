"""How sure a classifier is, as nodes of its ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptkit.export.held import Array
from adaptkit.export.rule import Rule


def add_score(model: onnx.ModelProto, logits: str, score: str, rule: Rule, temperature: float = 1.0) -> None:
    """Let a model give the score of each sample as a further output, of N values.

    With p = softmax(logits / T): max p, p₁ − p₂ of the two largest, or −Σ p ln p, where 0 ln 0 = 0.

    Args:
        model: Changed in place.
        logits: Its output N × classes.
        score: Name of the new output.
        rule: Which score.
        temperature: T, which softens what the model is too sure of (Guo et al. 2017).
    """
    graph, made = model.graph, f"{score}/"

    def constant(name: str, value: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(value, made + name))
        return made + name

    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> None:
        graph.node.append(helper.make_node(kind, inputs, list(outputs), made + kind, **attributes))

    scaled = logits
    if temperature != 1:
        node("Div", [logits, constant("temperature", np.array(temperature, np.float32))], made + "scaled")
        scaled = made + "scaled"
    axis = constant("axis", np.array([1], np.int64))
    if rule == "entropy":
        node("LogSoftmax", [scaled], made + "log", axis=1)
        node("Exp", [made + "log"], made + "p")
        node("Mul", [made + "p", made + "log"], made + "terms")
        node("ReduceSum", [made + "terms", axis], made + "sum", keepdims=0)
        node("Neg", [made + "sum"], score)
    else:
        node("Softmax", [scaled], made + "p", axis=1)
        if rule == "confidence":
            node("ReduceMax", [made + "p", axis], score, keepdims=0)
        else:
            node("TopK", [made + "p", constant("two", np.array([2], np.int64))], made + "top", made + "places", axis=1)
            node("Mul", [made + "top", constant("signs", np.array([[1, -1]], np.float32))], made + "signed")
            node("ReduceSum", [made + "signed", axis], score, keepdims=0)
    batch = next(value for value in graph.output if value.name == logits).type.tensor_type.shape.dim[0].dim_param
    graph.output.append(helper.make_tensor_value_info(score, TensorProto.FLOAT, [batch or 1]))
