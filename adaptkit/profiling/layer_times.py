"""Where the time of an ONNX file goes: ONNX Runtime's own profile, by layer of the PyTorch model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx

from adaptkit.export.files import read_model
from adaptkit.export.names import layer_of, producers
from adaptkit.profiling.inputs import random_feeds
from adaptkit.profiling.kernels import run_kernels

_MULTIPLIES = re.compile("Conv|Gemm|MatMul")
_ADDED = re.compile(r"^fused |(_nchwc|_nhwc|_token_\d+|_quant|/duplicated|/\w+Fusion/?)+$")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layer_times(path: Path, *, batch_size: int = 1, threads: int = 1, repeats: int = 30) -> dict[str, float]:
    """Give the microseconds that each layer's kernel takes in a call, as the median over calls.

    ONNX Runtime merges and renames nodes: a fused convolution is found by its name or by the name of what it puts out.
    Conversions of layout or type between the layers are not in the figures. Profiling slows small kernels down a
    little.

    Args:
        path: An ONNX file exported by adaptkit.
        batch_size: Samples in a call.
        threads: Threads within an operator.
        repeats: Profiled calls, after a fifth as many for warming up.
    """
    owners = layer_names(read_model(path, weights_beside=False).graph)
    run = run_kernels(
        path, lambda session: random_feeds(session, batch_size, 0, path.name), threads=threads, repeats=repeats
    )
    times: dict[str, float] = defaultdict(float)
    for kernel in run.kernels:
        layer = owners.get(node_name(kernel.name))
        if layer is not None and multiplies(kernel.op):
            times[layer] += run.microseconds(kernel)
    return dict(times)


def multiplies(op: str) -> bool:
    """Say whether a type of operation is one of the layers with weights, fused or not.

    Example:
        >>> multiplies("QLinearConv"), multiplies("FusedMatMul"), multiplies("MaxPool")
        (True, True, False)
    """
    return _MULTIPLIES.search(op) is not None


def node_name(kernel_name: str) -> str:
    """Take the endings off that ONNX Runtime puts on the name of a node, or of a value, that it fused or laid out anew.

    Example:
        >>> node_name("relu_1_nchwc"), node_name("fc/MatMul_quant"), node_name("fc/MatMul/MatMulScaleFusion/")
        ('relu_1', 'fc/MatMul', 'fc/MatMul')
    """
    return _ADDED.sub("", kernel_name)


def row_of(node: onnx.NodeProto) -> str:
    """Give the name of the layer that a node counts to: its module, its own name where that is unknown."""
    return layer_of(node.name) or node.name.lstrip("/")


def layer_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Map the names a kernel that multiplies may go by, of a node or of a value, to the layer that it is."""
    makers = producers(graph)
    owners: dict[str, str] = {}
    for node in graph.node:
        maker = _multiplier(node, makers)
        if maker is not None:
            owners |= dict.fromkeys((node.name, *node.output), row_of(maker))
    return owners


def _multiplier(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Go back over what may be fused to the node that multiplies."""
    while node.op_type not in _LAYERS:
        if not node.input or node.input[0] not in makers:
            return None
        node = makers[node.input[0]]
    return node
