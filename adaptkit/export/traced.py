"""ONNX export of models that torch.export cannot capture, such as detectors: one call is traced instead."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_flatten_with_path

from adaptkit.export.held import Held


def takes_only_tensors(example_inputs: tuple[Any, ...]) -> bool:
    """Say whether every input is a tensor, with the batch first.

    Example:
        >>> takes_only_tensors((torch.zeros(2, 3),)), takes_only_tensors(([torch.zeros(3, 8, 8)],))
        (True, False)
    """
    return all(isinstance(x, Tensor) for x in example_inputs)


def trace(model: nn.Module, example_inputs: tuple[Any, ...], opset: int) -> tuple[onnx.ModelProto, Held]:
    """Export what the model does on the example; paths that it chooses by shapes stay as the example chose them.

    Inputs are called `input` (`input_1`, …) and have the shapes of the example. Outputs that come in dictionaries are
    called by their keys (`boxes`, `boxes_1` for the second image, …), all others `logits`.

    Args:
        model: In evaluation mode.
        example_inputs: Of one call: tensors, in lists and dictionaries too.
        opset: ONNX operator set.
    """
    inputs = tree_flatten(example_inputs)[0]
    outputs = _output_names(model(*example_inputs))
    names = [f"input_{i}" if i else "input" for i in range(len(inputs))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        positional = (*example_inputs, {})  # a dictionary that came last would be taken for named arguments
        torch.onnx.export(
            model, positional, file, dynamo=False, opset_version=opset, input_names=names, output_names=outputs
        )
        proto = onnx.load(file)
    _strip_source_locations(proto.graph)
    return proto, {}


def _strip_source_locations(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.ClearField("doc_string")
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _strip_source_locations(inner)


def _output_names(outputs: Any) -> list[str]:
    taken: dict[str, int] = {}
    names = []
    for path, _ in tree_flatten_with_path(outputs)[0]:
        keys = [str(part.key) for part in path if hasattr(part, "key")]
        stem = keys[-1] if keys else "logits"
        count = taken.get(stem, 0)
        taken[stem] = count + 1
        names.append(f"{stem}_{count}" if count else stem)
    return names
