"""A model as a graph of ATen operations with nothing hidden: parameters come in as arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from adaptkit.errors import ModelError
from adaptkit.export.capture import capture_program
from adaptkit.modes import evaluating
from adaptkit.quiet import quiet


@dataclass
class Captured:
    """A model in evaluation mode as a functional graph.

    Args:
        graph: Its placeholders are parameters, buffers, constants and inputs, in any order; returns a flat tuple.
        state: Placeholder to the name of the parameter or buffer in the model.
        constants: Placeholder to a value that is written into the model's code.
        inputs: The placeholders of the model's inputs, in order.
        outputs: Puts the flat tuple into the form the model returns.
    """

    graph: fx.Graph
    state: dict[str, str]
    constants: dict[str, Tensor]
    inputs: tuple[str, ...]
    outputs: Any

    def arguments(self, model: nn.Module, inputs: tuple[Tensor, ...] | None) -> dict[str, Any]:
        """Collect the values of all placeholders; without `inputs` those of the model alone."""
        own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        own.update(model.named_buffers(remove_duplicate=False))
        values: dict[str, Any] = {name: own[target] for name, target in self.state.items()} | self.constants
        return values | (dict(zip(self.inputs, inputs, strict=True)) if inputs is not None else {})

    def owner(self, name: str) -> str:
        """Name the module whose parameter a placeholder holds, '' for the model itself or for anything else."""
        return self.state.get(name, "").rpartition(".")[0]


def capture(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Captured:
    """Capture a model in evaluation mode, with any batch size, free of in-place operations.

    Args:
        model: Any module that torch.export captures.
        example_inputs: Inputs of one call, batch first.

    Raises:
        ModelError: torch.export refuses the model, or it returns something that is no tensor; says where.
    """
    try:
        with evaluating(model), quiet(), torch.inference_mode(False), torch.no_grad():
            program = capture_program(model, example_inputs).run_decompositions({})
    except Exception as error:  # whatever the model's own code raises is about this model
        raise ModelError(f"{type(model).__name__} cannot be captured: {reason_of(error)}") from error
    _check_outputs(program.graph_module.graph, type(model).__name__)
    return _captured(program)


def reason_of(error: Exception) -> str:
    r"""Give the first line of what an exception says.

    Example:
        >>> reason_of(ValueError("too long\nWhile executing …")), reason_of(KeyError())
        ('too long', 'KeyError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _check_outputs(graph: fx.Graph, name: str) -> None:
    outputs = graph.output_node().args[0]
    assert isinstance(outputs, tuple)
    values = [output.meta["val"] if isinstance(output, fx.Node) else output for output in outputs]
    # None stands in many models for an output that was not asked for.
    given = [value for value in values if value is not None]
    if not given or not all(isinstance(value, Tensor) for value in given):
        raise ModelError(
            f"{name} returns something that is no tensor: wrap it in a module that returns tensors, alone or in "
            "tuples, lists and dictionaries"
        )


def _captured(program: torch.export.ExportedProgram) -> Captured:
    state: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    for spec in program.graph_signature.input_specs:
        name, target = str(getattr(spec.arg, "name", "")), spec.target
        if target is not None and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            state[name] = target
        elif target is not None and spec.kind == InputKind.CONSTANT_TENSOR:
            constants[name] = program.constants[target]
    spec_of_output = program.call_spec.out_spec
    graph = program.graph_module.graph
    _free_of_layout(graph)
    return Captured(
        graph,
        state,
        constants,
        tuple(str(name) for name in program.graph_signature.user_inputs),
        lambda flat: pytree.tree_unflatten(flat, spec_of_output) if spec_of_output is not None else flat,
    )


def _free_of_layout(graph: fx.Graph) -> None:
    """Views hold for the memory layout the model was captured in; real inputs may come channels last."""
    for node in graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default


def fixed_values(captured: Captured, model: nn.Module) -> dict[str, Any]:
    """Compute every node that depends on parameters alone, such as a folded weight.

    Returns:
        Node name to value; placeholders of the model's tensors are among them.
    """
    values = captured.arguments(model, None)
    with torch.no_grad():
        for node in captured.graph.nodes:
            sources = node.all_input_nodes
            if node.op == "call_function" and sources and all(source.name in values for source in sources):
                arguments = fx.map_arg((node.args, node.kwargs), lambda source: values[source.name])
                values[node.name] = node.target(*arguments[0], **arguments[1])
    return values


def observe(
    module: fx.GraphModule, arguments: dict[str, Any], record: Callable[[fx.Node, Any], None]
) -> tuple[Tensor, ...]:
    """Run a graph once and show every node with its value to `record`; values are freed after their last use."""
    ordered = [arguments[node.name] for node in module.graph.nodes if node.op == "placeholder"]
    outputs: tuple[Tensor, ...] = _Observed(module, record).run(*ordered)
    return outputs


class _Observed(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, record: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(module)
        self._record = record
        # It would write lines of the graph into the messages of our own errors.
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self._record(n, value)
        return value


def module_of(node: fx.Node) -> str:
    """Name the innermost module a node was captured in, '' where none is known."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack", {})
    return list(stack.values())[-1][0] if stack else ""
