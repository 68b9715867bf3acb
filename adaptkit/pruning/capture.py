"""A model's forward pass as a list of ATen calls."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import ModelError
from adaptkit.modes import evaluating
from adaptkit.quiet import quiet


@dataclass(frozen=True)
class Program:
    """One captured forward pass.

    Args:
        nodes: The calls in order, inputs and parameters among them.
        tensors: The name in the state dict of every placeholder that is a parameter or buffer.
        training: The mode that was captured.
    """

    nodes: tuple[fx.Node, ...]
    tensors: dict[str, str]
    training: bool

    def unused(self) -> set[str]:
        """Name the parameters and buffers that no call reads."""
        return {self.tensors[node.name] for node in self.nodes if node.name in self.tensors and not node.users}


class CaptureError(ModelError):
    """The model could not be captured; `path` is the module that was running.

    Args:
        path: Where the error happened.
        error: What torch said.
    """

    def __init__(self, path: str, error: Exception) -> None:
        self.path = path
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = path or "the model itself"
        super().__init__(f"the model cannot be captured: {where} raised {type(error).__name__}: {first_line}")


def capture(model: nn.Module, inputs: tuple[Any, ...], training: bool) -> Program:
    """Capture one forward pass as ATen calls, on shapes only: no weights are computed with.

    Args:
        model: Left as it was.
        inputs: Inputs of one call, batch first.
        training: Whether to capture the training mode.

    Raises:
        CaptureError: torch.export cannot follow the model on these inputs.
    """
    running: list[str] = []
    with evaluating(model, training), _track(model, running), quiet():
        try:
            exported = torch.export.export(model, inputs, strict=False)
        except Exception as error:
            raise CaptureError(running[-1] if running else "", error) from error
    signature = exported.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return Program(tuple(exported.graph.nodes), tensors, training)


def shape_copy(model: nn.Module) -> nn.Module:
    """Copy a model without its weights: every parameter is one zero, expanded to the shape."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)
        memo[id(parameter)] = nn.Parameter(zero, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def at_least_two(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Repeat a batch of one, which batch normalization cannot train on."""
    if all(isinstance(item, Tensor) and item.dim() > 0 and len(item) == 1 for item in inputs):
        return tuple(torch.cat([item, item]) for item in inputs)
    return inputs


def owner_of(node: fx.Node) -> str:
    """Name the module whose forward made this call."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an ATen call by name, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(index): value for index, value in enumerate(node.args)}
    named: dict[str, Any] = {}
    for index, argument in enumerate(schema.arguments):
        given = node.args[index] if index < len(node.args) else argument.default_value
        named[argument.name] = node.kwargs.get(argument.name, given)
    return named


@contextlib.contextmanager
def _track(model: nn.Module, running: list[str]) -> Iterator[None]:
    handles: list[Any] = []

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
