"""Capturing the parts of a model that cannot be captured whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from adaptkit.modes import evaluating
from adaptkit.pruning.capture import CaptureError, Program, capture


@dataclass
class Calls:
    """What the modules of a model were called with.

    Args:
        inputs: Of the first call of each module, by path; None where it was called with keywords.
        around: Which modules were running at every call of a module.
    """

    inputs: dict[str, tuple[Any, ...] | None] = field(default_factory=dict)
    around: dict[str, list[frozenset[str]]] = field(default_factory=lambda: defaultdict(list))


def capture_parts(model: nn.Module, hollow: nn.Module, inputs: tuple[Any, ...]) -> tuple[list[Program], set[str]]:
    """Run a model and capture the largest submodules that can be captured, on the inputs they were really given.

    What such a part gives out stays as it is, since who takes it is not known.

    Args:
        model: Left as it was.
        hollow: Its hollow copy.
        inputs: Inputs of one call.

    Returns:
        The programs, and the names of parameters and buffers inside the parts that are also used from outside.
    """
    calls = _recorded(model, inputs)
    programs = list(_largest(model, hollow, calls, ""))
    shared = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for program in programs
        if _within(path, program.root) and any(program.root not in around for around in calls.around[path])
    }
    return programs, shared


def _largest(model: nn.Module, hollow: nn.Module, calls: Calls, path: str) -> Iterator[Program]:
    for name, child in model.get_submodule(path).named_children():
        inside = f"{path}.{name}" if path else name
        if not any(True for _ in child.children()) or not any(True for _ in child.parameters()):
            continue
        program = _captured(hollow, calls.inputs.get(inside), inside)
        if program is None:
            yield from _largest(model, hollow, calls, inside)
        else:
            yield program


def _captured(hollow: nn.Module, inputs: tuple[Any, ...] | None, path: str) -> Program | None:
    if inputs is None:
        return None
    try:
        return capture(hollow, inputs, training=False, root=path)
    except CaptureError:
        return None


def _recorded(model: nn.Module, inputs: tuple[Any, ...]) -> Calls:
    calls = Calls()
    with evaluating(model), _watched(model, calls), torch.no_grad():
        model(*inputs)
    return calls


@contextmanager
def _watched(model: nn.Module, calls: Calls) -> Iterator[None]:
    running: list[str] = []
    handles: list[Any] = []

    def enter(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running.append(path)
        calls.inputs.setdefault(path, None if kwargs else args)
        calls.around[path].append(frozenset(running))

    for path, module in model.named_modules():
        before = module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: enter(path, args, kwargs), with_kwargs=True
        )
        handles += [before, module.register_forward_hook(lambda *_: running.pop() and None)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}.")
