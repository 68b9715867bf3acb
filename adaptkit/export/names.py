"""Names of nodes in an exported file: which module of the PyTorch model each one came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import onnx

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_NO_MODULE: Final = "_empty_nn_module_stack_from_metadata_hook"
_SUFFIXES: Final = (".weight", ".bias")


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node after its module, from the exporter's notes: `layer1.0.conv1/Conv`.

    A convolution that took in its batch normalization is named after both, `conv1+bn1/Conv`. A name that is taken gets
    `_1`, `_2`, …; nodes outside any module are called `/Relu`. Names depend on the model only, not on the machine.
    """
    weights = {tensor.name for tensor in graph.initializer}
    taken: dict[str, int] = {}
    for node in graph.node:
        scope = _scope(node)
        layer = _weight_layer(node, weights) or scope
        where = layer if layer == scope or not scope else f"{layer}+{scope}"
        stem = f"{where}/{node.op_type}"
        count = taken.get(stem, 0)
        taken[stem] = count + 1
        node.name = f"{stem}_{count}" if count else stem


def layer_of(node_name: str) -> str:
    """Give the module that holds the weights of a node, `""` for the model itself.

    Example:
        >>> layer_of("layer1.0.conv1+layer1.0.bn1/Conv"), layer_of("/Relu_3")
        ('layer1.0.conv1', '')
    """
    return _where(node_name).partition("+")[0]


def scope_of(node_name: str) -> str | None:
    """Give the module whose call made the output of a node, None where the name is not one of ours.

    Example:
        >>> scope_of("layer1.0.conv1+layer1.0.bn1/Conv"), scope_of("/Relu_3"), scope_of("node_relu")
        ('layer1.0.bn1', '', None)
    """
    if "/" not in node_name:
        return None
    first, _, second = _where(node_name).partition("+")
    return second or first


def producers(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    """Map every value to the node that makes it."""
    return {output: node for node in graph.node for output in node.output}


def _where(node_name: str) -> str:
    return node_name.rpartition("/")[0]


def _scope(node: onnx.NodeProto) -> str:
    notes = {entry.key: entry.value for entry in node.metadata_props}
    # The notes hold a Python list: ['', 'layer1', 'layer1.0', 'name of the call'].
    scopes: list[str] = json.loads(notes.get(_SCOPES, "[]").replace("'", '"'))
    modules = [scope for scope in scopes[:-1] if scope != _NO_MODULE]
    return modules[-1] if modules else ""


def _weight_layer(node: onnx.NodeProto, weights: set[str]) -> str | None:
    """Only for convolutions: theirs is the one weight that takes in a normalization and keeps its name."""
    if node.op_type not in ("Conv", "ConvTranspose") or node.input[1] not in weights:
        return None
    name = node.input[1]
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), None)
