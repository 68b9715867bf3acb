"""Stages of an early exit put into one ONNX file: nested If, of which ONNX Runtime runs one branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptkit.export.metadata import EXIT_INDEX, EXITS
from adaptkit.export.rule import Rule, leaves_below


@dataclass(frozen=True)
class StageNames:
    """What a stage gives.

    Args:
        logits: Its answer.
        score: How sure it is; None for the last stage, which always answers.
    """

    logits: str
    score: str | None = None


def compose(
    stages: Sequence[onnx.ModelProto], names: Sequence[StageNames], rule: Rule, thresholds: Sequence[float]
) -> onnx.ModelProto:
    """Put stages into one file that leaves at the first exit where every sample of the batch is sure enough.

    ONNX's If decides once a call, so the batch leaves as a whole; for one sample that is the same as the stages one by
    one. Outputs are `logits` and `exit_index`, the number of the exit from 0, as one int64.

    Args:
        stages: From `split`, each with its score.
        names: Of the outputs of each.
        rule: What the scores are.
        thresholds: For each stage but the last.
    """
    composed = onnx.ModelProto()
    composed.CopyFrom(stages[0])
    composed.metadata_props.add(key=EXITS, value=str(len(stages)))
    graph = composed.graph
    taken = {name for value in graph.node for name in value.output} | _constant_names(graph)
    del graph.output[:]
    _leave_or_go_on(graph, list(stages), list(names), rule, list(thresholds), 0, taken)
    classes = stages[0].graph.output
    logits = next(value for value in classes if value.name == names[0].logits)
    graph.output.extend([_renamed(logits, "logits"), helper.make_tensor_value_info(EXIT_INDEX, TensorProto.INT64, [1])])
    return composed


def _leave_or_go_on(
    graph: onnx.GraphProto,
    stages: list[onnx.ModelProto],
    names: list[StageNames],
    rule: Rule,
    thresholds: list[float],
    index: int,
    taken: set[str],
) -> None:
    """Add to a graph what follows stage `index`: the answer, or an If over the answer and the stages after it."""
    made = f"exit_{index}/"
    results = ["logits", EXIT_INDEX] if index == 0 else [f"{made}logits", f"{made}index"]
    score = names[index].score
    if score is None:
        graph.node.extend(_answer(graph, names[index].logits, index, results))
        return
    least = "ReduceMax" if leaves_below(rule) else "ReduceMin"
    compare = "LessOrEqual" if leaves_below(rule) else "GreaterOrEqual"
    graph.initializer.append(numpy_helper.from_array(np.array(thresholds[index], np.float32), f"{made}threshold"))
    leave, go_on = onnx.GraphProto(name=f"{made}leave"), onnx.GraphProto(name=f"{made}go_on")
    leave.node.extend(_answer(leave, names[index].logits, index, [f"{made}then_logits", f"{made}then_index"]))
    _result(leave, [f"{made}then_logits", f"{made}then_index"])
    following = names[index + 1]
    renamed = _inlined(go_on, stages[index + 1].graph, taken, index + 1)
    names[index + 1] = StageNames(
        renamed.get(following.logits, following.logits),
        following.score and renamed.get(following.score, following.score),
    )
    _leave_or_go_on(go_on, stages, names, rule, thresholds, index + 1, taken)
    _result(go_on, [f"exit_{index + 1}/logits", f"exit_{index + 1}/index"])
    graph.node.extend(
        [
            helper.make_node(least, [score], [f"{made}least"], f"{made}{least}", keepdims=0),
            helper.make_node(compare, [f"{made}least", f"{made}threshold"], [f"{made}sure"], f"{made}{compare}"),
            helper.make_node("If", [f"{made}sure"], results, f"{made}If", then_branch=leave, else_branch=go_on),
        ]
    )


def _answer(graph: onnx.GraphProto, logits: str, index: int, results: list[str]) -> list[onnx.NodeProto]:
    number = f"{results[1]}/number"
    graph.initializer.append(numpy_helper.from_array(np.array([index], np.int64), number))
    # A branch may not give a value from outside of it directly.
    return [
        helper.make_node("Identity", [logits], [results[0]], f"{results[0]}/Identity"),
        helper.make_node("Identity", [number], [results[1]], f"{results[1]}/Identity"),
    ]


def _result(branch: onnx.GraphProto, names: list[str]) -> None:
    branch.output.extend(
        [
            helper.make_tensor_value_info(names[0], TensorProto.FLOAT, None),
            helper.make_tensor_value_info(names[1], TensorProto.INT64, [1]),
        ]
    )


def _inlined(branch: onnx.GraphProto, stage: onnx.GraphProto, taken: set[str], index: int) -> dict[str, str]:
    """Copy a stage into a branch; names that are taken outside of it, such as a shared scale's, are made anew."""
    own = {name for node in stage.node for name in node.output} | _constant_names(stage)
    renamed = {name: f"{name}/stage_{index}" for name in own & taken}
    for node in stage.node:
        copied = branch.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [renamed.get(name, name) for name in node.input]
        copied.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in stage.initializer:
        branch.initializer.add().CopyFrom(tensor)
        branch.initializer[-1].name = renamed.get(tensor.name, tensor.name)
    for sparse in stage.sparse_initializer:
        branch.sparse_initializer.add().CopyFrom(sparse)
        branch.sparse_initializer[-1].values.name = renamed.get(sparse.values.name, sparse.values.name)
    taken |= own
    return renamed


def _constant_names(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = name
    return copied
