"""Residual blocks: finding those that the identity may replace."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptkit.modes import evaluating
from adaptkit.quiet import quiet
from adaptkit.surgery import find_modules

_ADD = {"aten.add.Tensor", "aten.add_.Tensor"}
# What may stand between the input, the addition and the output: none changes which value is where, and on the output
# of an earlier block (already rectified or normalized) each is about the identity.
_PASS = {
    "aten.relu.default",
    "aten.relu_.default",
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.dropout.default",
    "aten.dropout_.default",
    "aten.layer_norm.default",
    "aten.rms_norm.default",
}


def residual_blocks(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    targets: Sequence[str] = ("*",),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Find the residual blocks that the identity can replace, in the order in which they run.

    A block is a module that is called once, with one tensor, and returns one of the same shape and type, y = x + f(x);
    on its captured graph the input reaches the output by additions (and an activation or normalization after them)
    alone. Where such modules are nested the outer one is the block, unless it strings several together (a stage).

    Args:
        model: Run once in evaluation mode; left as it was.
        example_inputs: Inputs of one call, batch first.
        targets: Which modules may be blocks; patterns as in `find_modules`.
        ignore: Which may not.

    Returns:
        The input that each block saw, by module name.

    Example:
        >>> from torchvision.models import resnet18
        >>> list(residual_blocks(resnet18(), (torch.zeros(1, 3, 64, 64),)))
        ['layer1.0', 'layer1.1', 'layer2.1', 'layer3.1', 'layer4.1']
    """
    calls = _single_calls(model, example_inputs, list(find_modules(model, targets, ignore)))
    verdicts: dict[str, bool] = {}
    found: set[str] = set()
    for name in sorted(calls, key=lambda name: -name.count(".")):
        module = model.get_submodule(name)
        inside = {other for other in found if other.startswith(name + ".")}
        if len(inside) > 1 or (inside and isinstance(module, nn.Sequential)):
            continue
        key = signature(module, calls[name])
        if key not in verdicts:
            verdicts[key] = has_skip(module, calls[name])
        if verdicts[key]:
            found = (found - inside) | {name}
    return {name: x for name, x in calls.items() if name in found}


def has_skip(block: nn.Module, x: Tensor) -> bool:
    """Say whether the input of a block reaches its output by additions to a branch that depends on it.

    Example:
        >>> from torchvision.models.resnet import BasicBlock
        >>> has_skip(BasicBlock(4, 4), torch.zeros(1, 4, 8, 8)), has_skip(nn.Conv2d(4, 4, 1), torch.zeros(1, 4, 8, 8))
        (True, False)
    """
    try:
        with evaluating(block), quiet(), torch.no_grad():
            program = torch.export.export(block, (x,), strict=False)
    except Exception as error:  # whatever torch.export cannot capture, it says so in many types of its own
        logging.getLogger(__name__).debug("%s cannot be captured: %s", type(block).__name__, error)
        return False
    user_inputs = set(program.graph_signature.user_inputs)
    start = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in user_inputs)
    output = next(node for node in program.graph.nodes if node.op == "output")
    results = [node for node in output.args[0] if isinstance(node, fx.Node)]
    return _reaches(results[-1], start, _descendants(start), added=False)


def signature(module: nn.Module, x: Tensor) -> str:
    """Describe all that the time of a module depends on: its structure, sizes and settings, and its input's shape."""
    sizes = [f"{name}:{tuple(value.shape)}" for name, value in module.state_dict().items()]
    settings = [
        f"{name}.{key}={value}"
        for name, child in module.named_modules()
        for key, value in sorted(vars(child).items())
        if key != "training" and not key.startswith("_") and isinstance(value, (bool, int, float, str, tuple))
    ]
    return "\n".join([type(module).__qualname__, str(tuple(x.shape)), str(module), *sizes, *settings])


def _single_calls(model: nn.Module, example_inputs: tuple[Tensor, ...], names: Sequence[str]) -> dict[str, Tensor]:
    """Find the modules called once with one tensor that return another of the same shape, in order of execution."""
    calls: dict[str, list[Tensor | None]] = {}
    fits: dict[str, bool] = {}

    def pre_hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def remember(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            calls.setdefault(name, []).append(args[0].clone() if single else None)

        return remember

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def compare(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            x = calls[name][-1]
            fits[name] = x is not None and isinstance(out, Tensor) and (out.shape, out.dtype) == (x.shape, x.dtype)

        return compare

    handles = []
    for name in names:
        module = model.get_submodule(name)
        if any(True for _ in module.children()) and any(True for _ in module.parameters()):
            handles.append(module.register_forward_pre_hook(pre_hook(name), with_kwargs=True))
            handles.append(module.register_forward_hook(hook(name)))
    try:
        with evaluating(model), torch.no_grad():
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: xs[0] for name, xs in calls.items() if len(xs) == 1 and xs[0] is not None and fits.get(name)}


def _descendants(start: fx.Node) -> set[fx.Node]:
    found = {start}
    waiting = [start]
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _reaches(node: fx.Node, start: fx.Node, descendants: set[fx.Node], added: bool) -> bool:
    if node is start:
        return added
    op = str(node.target)
    if op in _PASS and isinstance(node.args[0], fx.Node):
        return _reaches(node.args[0], start, descendants, added)
    if op not in _ADD or node.kwargs.get("alpha", 1) != 1:
        return False
    left, right = node.args[:2]
    return any(
        isinstance(kept, fx.Node)
        and isinstance(branch, fx.Node)
        and _reaches(kept, start, descendants, added or branch in descendants)
        for kept, branch in ((left, right), (right, left))
    )
