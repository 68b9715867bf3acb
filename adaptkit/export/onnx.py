"""PyTorch model to ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import onnx
import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.export.capture import BATCH, capture_program
from adaptkit.export.explain import explain
from adaptkit.export.held import Held, fill_in, hold_back
from adaptkit.export.names import name_nodes
from adaptkit.export.operators import operators_read_once
from adaptkit.export.packaging import Packaging
from adaptkit.export.traced import takes_only_tensors, trace
from adaptkit.modes import evaluating
from adaptkit.quiet import quiet
from adaptkit.specs import ExportSpec

_DEFAULT = ExportSpec()


@runtime_checkable
class ExportsItself(Protocol):
    """A model that is exported in another form than the one that runs in PyTorch, such as a simulated int8 model."""

    def export_model(self) -> nn.Module:
        """Give the module that is captured in its place."""

    def finish_onnx(self, proto: onnx.ModelProto, held: Held) -> onnx.ModelProto:
        """Turn the captured graph into the final one; its large constants are in `held`, without those it drops."""


def export_onnx(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    path: Path,
    *,
    spec: ExportSpec = _DEFAULT,
    labels: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recipe_sha256: str = "",
) -> None:
    """Write a model as an ONNX file, whole or not at all; the same model gives the same bytes.

    Args:
        model: Any module that torch.export captures, or one that `ExportsItself`.
        example_inputs: Inputs of one call, batch first.
        path: Of the .onnx file; its folder must exist.
        spec: Operator set, one file or two, normalization inside the graph or not.
        labels: Name of each class.
        mean: Per channel of images in [0, 1]; None where the model takes pixels as they are.
        std: Per channel.
        recipe_sha256: Of the recipe that made the model.

    Raises:
        ModelError: The model cannot be captured or written as ONNX.
        RunFolderError: The disk is full or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> export_onnx(nn.Linear(4, 2), (torch.zeros(1, 4),), folder / "model.onnx", labels=("no", "yes"))
        >>> [file.name for file in folder.iterdir()]
        ['model.onnx']
    """
    proto, held = _final(model, example_inputs, spec.opset)
    Packaging(spec, tuple(labels), tuple(mean or ()), tuple(std or ()), recipe_sha256).write(proto, path, held)


def final_onnx(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int = 20) -> onnx.ModelProto:
    """Export a model the way it wants to be exported: as `to_onnx`, through its own hooks where it has them."""
    return fill_in(*_final(model, example_inputs, opset))


def to_onnx(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int = 20) -> onnx.ModelProto:
    """Export a model in evaluation mode, with a dynamic batch dimension and batch normalization folded.

    Inputs are called `input` (`input_1`, … when there are more), outputs `logits` (`logits_1`, …), the free dimension
    `batch`, nodes as `names.name_nodes` says. The same model gives the same bytes: files and lines of the source are
    left out. A model that takes lists or dictionaries, as detectors do, is traced on the example instead: shapes stay
    those of the example, and outputs are called by their keys (`boxes`, `scores`, …).

    Args:
        model: Any module that torch.export captures, or torch.jit.trace where it takes more than tensors.
        example_inputs: Inputs of one call, batch first.
        opset: ONNX operator set.

    Raises:
        ModelError: torch.export or the exporter refuses the model; says why and where.
    """
    return fill_in(*_exported(model, example_inputs, opset))


def _final(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int) -> tuple[onnx.ModelProto, Held]:
    if not isinstance(model, ExportsItself):
        return _exported(model, example_inputs, opset)
    proto, held = _exported(model.export_model(), example_inputs, opset)
    return model.finish_onnx(proto, held), held


def _exported(model: nn.Module, example_inputs: tuple[Tensor, ...], opset: int) -> tuple[onnx.ModelProto, Held]:
    captured: torch.export.ExportedProgram | None = None
    try:
        with evaluating(model), quiet(), torch.inference_mode(False), torch.no_grad():
            if not takes_only_tensors(example_inputs):
                return trace(model, example_inputs, opset)
            captured = capture_program(model, example_inputs)
            proto, held = _convert(captured, opset)
    except Exception as error:  # whatever the model's own code or the exporter raises is about this model
        raise ModelError(explain(type(model).__name__, error, captured)) from error
    name_nodes(proto.graph)
    _name_batch(proto.graph)
    _strip_source_locations(proto)
    return proto, held


def _convert(captured: torch.export.ExportedProgram, opset: int) -> tuple[onnx.ModelProto, Held]:
    inputs = len(captured.graph_signature.user_inputs)
    with operators_read_once():
        program = torch.onnx.export(
            captured, (), dynamo=True, opset_version=opset, input_names=_names("input", inputs), verbose=False
        )
    assert program is not None  # it is None only where a file name is given
    held = hold_back(program.model)
    proto: onnx.ModelProto = program.model_proto
    for value, name in zip(proto.graph.output, _names("logits", len(proto.graph.output)), strict=True):
        _rename(proto.graph, value.name, name)
    return proto, held


def _names(stem: str, count: int) -> list[str]:
    return [stem] + [f"{stem}_{i}" for i in range(1, count)]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _name_batch(graph: onnx.GraphProto) -> None:
    """Call the free dimension `batch`; the exporter gives it a number, and uses it in expressions such as `2*s77`."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        return
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = dim.dim_param.replace(symbol, BATCH)


def _strip_source_locations(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes on nodes: they hold paths of this machine and change with the checkout."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
        del graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
