"""A model's forward pass as a list of ATen calls."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from adaptkit.errors import ModelError
from adaptkit.pruning.record import record
from adaptkit.quiet import quiet


@dataclass(frozen=True)
class Program:
    """One captured forward pass.

    Args:
        nodes: The calls in order, inputs and parameters among them.
        tensors: The name in the state dict of every placeholder that is a parameter or buffer.
        training: The mode that was captured.
        inputs: Of the call that was captured.
        root: Path of the module that was captured.
    """

    nodes: tuple[fx.Node, ...]
    tensors: dict[str, str]
    training: bool
    inputs: tuple[Any, ...]
    root: str = ""

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
        sentence = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        where = path or "the model itself"
        super().__init__(f"the model cannot be captured: {where} raised {type(error).__name__}: {sentence}")


def capture(hollow: nn.Module, inputs: tuple[Any, ...], training: bool, root: str = "") -> Program:
    """Capture one forward pass as ATen calls, on shapes only: no weights are computed with.

    Args:
        hollow: A model from `hollow_copy`; left in the mode asked for.
        inputs: Inputs of one call, batch first.
        training: Whether to capture the training mode.
        root: Path of the submodule to capture; the whole model where empty.

    Raises:
        CaptureError: The model needs more than shapes, such as the value of a tensor to branch on.
    """
    running: list[str] = []
    hollow.train(training)
    module = hollow.get_submodule(root)
    prefix = f"{root}." if root else ""
    named = [(prefix + name, tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())]
    with _track(module, prefix, running), quiet():
        try:
            graph, tensors = record(module, inputs, named, running)
        except Exception as error:
            raise CaptureError(running[-1] if running else root, error) from error
    return Program(tuple(graph.nodes), tensors, training, inputs, root)


def hollow_copy(model: nn.Module) -> nn.Module:
    """Copy a model without its weights: parameters and buffers become shapes on the meta device."""
    memo: dict[int, Any] = {}
    _refuse_weight_norm(model)
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(model, memo)


def copy_of(model: nn.Module) -> nn.Module:
    """Copy a model with its weights.

    Raises:
        ModelError: A layer has torch.nn.utils.weight_norm or spectral_norm, which torch cannot copy.
    """
    _refuse_weight_norm(model)
    return copy.deepcopy(model)


def _refuse_weight_norm(model: nn.Module) -> None:
    for path, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm):
                kind = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
                raise ModelError(
                    f"{path or 'the model'} computes its weight by torch.nn.utils.{kind}, so that it cannot be copied: "
                    f"call torch.nn.utils.remove_{kind} on it first"
                )


def at_least_two(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Repeat a batch of one, which batch normalization cannot train on."""
    if all(isinstance(item, Tensor) and item.dim() > 0 and len(item) == 1 for item in inputs):
        return tuple(torch.cat([item, item]) for item in inputs)
    return inputs


def owner_of(node: fx.Node) -> str:
    """Name the module whose forward made this call."""
    return str(node.meta.get("owner", ""))


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
def _track(model: nn.Module, prefix: str, running: list[str]) -> Iterator[None]:
    handles: list[Any] = []

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in model.named_modules():
        path = f"{prefix}{name}".removesuffix(".")
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
