"""PyTorch model to ONNX file."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError

_NOISY = ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")


def to_onnx(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int = 20) -> onnx.ModelProto:
    """Export a model in evaluation mode, with a dynamic batch dimension and batch normalization folded.

    Inputs are called `input` (`input_1`, … when there are more), outputs `logits` (`logits_1`, …). The same model gives
    the same bytes: names of files and lines of the source are left out.

    Args:
        model: Any module that torch.export captures.
        example_inputs: Inputs of one call, batch first.
        opset: ONNX operator set.

    Raises:
        ModelError: torch.export or the exporter refuses the model; says where.
    """
    was_training = model.training
    model.eval()
    try:
        proto = _export(model, example_inputs, opset)
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX: {_first_line(error)}") from error
    finally:
        model.train(was_training)
    _strip_source_locations(proto)
    return proto


def _export(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int) -> onnx.ModelProto:
    # A batch of one would be burnt into the graph as a constant.
    inputs = tuple(x if x.shape[0] > 1 else torch.cat([x, x]) for x in example_inputs)
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} for _ in inputs)
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        captured = torch.export.export(model, inputs, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            captured, (), dynamo=True, opset_version=opset, input_names=_names("input", len(inputs)), verbose=False
        )
    if program is None:
        raise ModelError("the ONNX exporter returned nothing")
    proto: onnx.ModelProto = program.model_proto
    for value, name in zip(proto.graph.output, _names("logits", len(proto.graph.output)), strict=True):
        _rename(proto.graph, value.name, name)
    return proto


def _names(stem: str, count: int) -> list[str]:
    return [stem] + [f"{stem}_{i}" for i in range(1, count)]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _strip_source_locations(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes on nodes: they hold paths of this machine and change with the checkout."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
        del graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
