"""Layer by layer: the tensors inside an ONNX file beside those of a reference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from adaptkit.export.names import layer_of, producers, scope_of
from adaptkit.runtime.session import open_session

Array: TypeAlias = np.ndarray[Any, Any]

NOT_FINITE = 1e9
"""The error of a tensor that holds NaN or infinity."""

_KEPT_BYTES = 2**28
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def relative_error(value: Array, reference: Array) -> float:
    """Root mean square of the difference over that of the reference; 20 log10(1 / error) is the SNR in dB.

    Example:
        >>> relative_error(np.array([1.0, 2.2]), np.array([1.0, 2.0])).__round__(4)
        0.0894
    """
    difference = np.sqrt(np.mean(np.square(value.astype(np.float64) - reference)))
    size = np.sqrt(np.mean(np.square(reference, dtype=np.float64)))
    error = float(difference / size) if size > 0 else float(difference)
    return error if np.isfinite(error) else NOT_FINITE


def errors_against_torch(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], model: nn.Module, inputs: Sequence[Tensor]
) -> dict[str, float]:
    """Compare the output of every module with the tensor the file has for it.

    Args:
        proto: An exported model whose nodes are named by `name_nodes`.
        feeds: Inputs of the file.
        model: The module it was exported from, in evaluation mode.
        inputs: The same inputs for the module.

    Returns:
        Relative error by module, in the order of the graph. Modules whose output has no tensor of its own in the file
        (merged, reshaped, unused) are left out.
    """
    calls = _module_outputs(model, inputs)
    pairs = _pair_with_values(proto.graph, calls)
    values = run_with_values(proto, feeds, [name for name, _, _ in pairs])
    errors: dict[str, float] = {}
    for name, label, reference in pairs:
        if name in values and values[name].shape == tuple(reference.shape):
            errors[label] = relative_error(values[name], reference.numpy())
    return errors


def errors_against_graph(
    proto: onnx.ModelProto,
    feeds: Mapping[str, Array],
    reference: onnx.ModelProto,
    reference_feeds: Mapping[str, Array],
) -> dict[str, float]:
    """Compare every float tensor of a quantized graph with the one of the same name in its float graph.

    Returns:
        Relative error by module (its last tensor), in the order of the graph; quantizers themselves are left out.
    """
    known = producers(reference.graph)
    names = [name for name, node in producers(proto.graph).items() if name in known and node.op_type not in _QUANTIZERS]
    ours = run_with_values(proto, feeds, names)
    theirs = run_with_values(reference, reference_feeds, names)
    errors: dict[str, float] = {}
    for name in names:
        if name in ours and name in theirs and ours[name].shape == theirs[name].shape:
            label = _label(known[name])
            errors.pop(label, None)  # a module stands where its last tensor does
            errors[label] = relative_error(ours[name], theirs[name])
    return errors


def first_jump(errors: Mapping[str, float], floor: float, factor: float) -> str | None:
    """Name the first layer whose error is above `floor` and `factor` times that of every layer before it.

    Example:
        >>> first_jump({"a": 1e-7, "b": 2e-7, "c": 0.3, "d": 0.4}, floor=1e-3, factor=8)
        'c'
        >>> first_jump({"a": 1e-7, "b": 2e-7}, floor=1e-3, factor=8) is None
        True
    """
    highest = 0.0
    for name, error in errors.items():
        if error > floor and error > factor * highest:
            return name
        highest = max(highest, error)
    return None


def samples_that_fit(model: nn.Module, inputs: Sequence[Tensor], most: int = 32) -> int:
    """Say how many samples can be compared so that the tensors kept take at most a quarter of a gigabyte."""
    one = _module_outputs(model, [x[:1] for x in inputs])
    size = sum(value.numel() * value.element_size() for values in one.values() for value in values)
    return int(max(1, min(most, _KEPT_BYTES // max(size, 1), inputs[0].shape[0])))


def run_with_values(proto: onnx.ModelProto, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Run a model and return some of the float tensors inside it by name; integer ones are left out."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    present = {value.name for value in changed.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in present]
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session: ort.InferenceSession = open_session(changed.SerializeToString())
    keep = [output.name for output in session.get_outputs() if output.type == "tensor(float)" and output.name in names]
    return dict(zip(keep, session.run(keep, dict(feeds)), strict=True)) if keep else {}


def _module_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Keep the output of every call of every module that returns one tensor, by the module's path."""
    calls: dict[str, list[Tensor]] = defaultdict(list)
    handles = []
    for path, module in model.named_modules():

        def keep(_module: nn.Module, _inputs: Any, output: Any, path: str = path) -> None:
            if isinstance(output, Tensor):
                calls[path].append(output.detach().clone())  # the next layer may work in place

        handles.append(module.register_forward_hook(keep))
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return dict(calls)


def _pair_with_values(graph: onnx.GraphProto, calls: Mapping[str, Sequence[Tensor]]) -> list[tuple[str, str, Tensor]]:
    """List (value in the graph, label, PyTorch's tensor): the last node of a module's call makes its output."""
    runs = Counter({path: len(outputs) for path, outputs in calls.items()})
    ends = _last_nodes(graph, runs)
    pairs = []
    for index, node in enumerate(graph.node):
        if index not in ends:
            continue
        scope, call = ends[index]
        label = _label(node) if runs[scope] == 1 else f"{_label(node)} (call {call + 1})"
        pairs.append((node.output[0], label, calls[scope][call]))
    return pairs


def _last_nodes(graph: onnx.GraphProto, runs: Mapping[str, int]) -> dict[int, tuple[str, int]]:
    own: dict[str, list[int]] = defaultdict(list)
    inside: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        scope = scope_of(node.name)
        if scope is None:
            continue
        own[scope].append(index)
        parts = scope.split(".") if scope else []
        for depth in range(len(parts) + 1):
            inside[".".join(parts[:depth])] = index
    ends: dict[int, tuple[str, int]] = {}
    for scope, indices in own.items():
        count = runs.get(scope, 0)
        # A module that ends in a child's node returns the child's tensor, which is compared there.
        if count == 0 or len(indices) % count or inside[scope] != indices[-1]:
            continue
        each = len(indices) // count
        for call in range(count):
            ends[indices[(call + 1) * each - 1]] = (scope, call)
    return ends


def _label(node: onnx.NodeProto) -> str:
    return layer_of(node.name) or node.name.lstrip("/") or node.op_type
