"""Where the time of an ONNX file goes: ONNX Runtime's own profile, by layer of the PyTorch model."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from adaptkit.export.files import read_model
from adaptkit.export.names import layer_of, producers
from adaptkit.profiling.latency import random_feeds
from adaptkit.runtime.session import open_session, session_options

_MULTIPLIES = re.compile("Conv|Gemm|MatMul")
_EVENT = "_kernel_time"
_ADDED = re.compile(r"^fused |(_nchwc|_nhwc|_token_\d+|_quant|/duplicated)+$")
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
    proto = read_model(path, weights_beside=False)
    owners = _owners(proto.graph)
    calls = _kernel_calls(path, batch_size, threads, repeats + max(1, repeats // 5))
    times: dict[str, float] = defaultdict(float)
    for name, durations in calls.items():
        layer = owners.get(_ADDED.sub("", name))
        if layer is not None:
            times[layer] += median(durations[-repeats:])
    return dict(times)


def _kernel_calls(path: Path, batch_size: int, threads: int, repeats: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = open_session(path, options=options)
        feeds = random_feeds(session, batch_size, 0, path.name)
        for _ in range(repeats):
            session.run(None, feeds)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    calls: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith(_EVENT) and _MULTIPLIES.search(event["args"]["op_name"]):
            calls[name.removesuffix(_EVENT)].append(float(event["dur"]))
    return calls


def _owners(graph: onnx.GraphProto) -> dict[str, str]:
    """Map the names a kernel may go by, of the node or of a value it puts out, to the layer that it is."""
    makers = producers(graph)
    owners: dict[str, str] = {}
    for node in graph.node:
        maker = _multiplier(node, makers)
        if maker is not None:
            layer = layer_of(maker.name) or maker.name.lstrip("/")
            owners |= dict.fromkeys((node.name, *node.output), layer)
    return owners


def _multiplier(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Go back over what may be fused to the node that multiplies."""
    while node.op_type not in _LAYERS:
        if not node.input or node.input[0] not in makers:
            return None
        node = makers[node.input[0]]
    return node
