"""Multiply-accumulate operations (MACs) of a model for one sample; FLOPs are twice as many.

Convolutions, matrix products and attention count; sums, activations, normalization and pooling do not.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from adaptkit.modes import evaluating
from adaptkit.profiling.free_ops import FREE_OPS
from adaptkit.profiling.graph import graph_cost

_AGREEMENT = 0.01

aten = torch.ops.aten


@dataclass(frozen=True)
class Macs:
    """MACs of one sample.

    Args:
        total: By our own formulas.
        per_layer: By module path; `""` holds what the model computes outside any module.
        uncounted: Operations without a formula that may compute.
        cross_check: By PyTorch's FlopCounterMode, an independent counter.
    """

    total: int
    per_layer: dict[str, int]
    uncounted: tuple[str, ...]
    cross_check: int

    @property
    def agrees(self) -> bool:
        """Whether both counters agree within 1 %."""
        return abs(self.total - self.cross_check) <= _AGREEMENT * max(self.total, self.cross_check)


def count_macs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs:
    """Count the MACs of one sample with two counters, on the operations that PyTorch really dispatches.

    The model runs in evaluation mode without gradients; fused attention is taken apart for the count, because its
    kernels hide the products inside. Modes and settings are restored.

    Args:
        model: Any module; runs twice on the first sample.
        example_inputs: Inputs of one call, batch first.

    Example:
        >>> macs = count_macs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (torch.zeros(2, 3, 10, 10),))
        >>> macs.total == 8 * 8 * 8 * 3 * 9, macs.per_layer, macs.agrees, macs.uncounted
        (True, {'0': 13824}, True, ())
    """
    sample = tuple(x[:1] for x in example_inputs)
    with evaluating(model), torch.no_grad(), _without_fast_path(), _layer_names(model) as stack:
        counter = _Counter(stack)
        with counter:
            model(*sample)
        # FlopCounterMode has no formula for the fused attention of CPUs; the plain form is matrix products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as check:
            model(*sample)
    return Macs(
        total=sum(counter.macs.values()),
        per_layer=dict(counter.macs),
        uncounted=tuple(sorted(counter.uncounted)),
        cross_check=check.get_total_flops() // 2,
    )


def onnx_macs(proto: onnx.ModelProto) -> int:
    """Count the MACs of one sample in an exported model, quantized or not; `graph.graph_cost` has them node by node.

    Raises:
        ModelError: An input dimension besides the first is free, or ONNX Runtime cannot run the model.
    """
    return graph_cost(proto).macs


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack = stack
        self.macs: Counter[str] = Counter()
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        rule = _RULES.get(func.overloadpacket)
        if rule is not None:
            self.macs[self.stack[-1]] += rule(args, output)
        elif not _computes_nothing(func):
            self.uncounted.add(str(func.overloadpacket))
        return output


def _matrix_product(args: tuple[Any, ...], output: Tensor) -> int:
    left = args[0]
    return int(output.numel() * left.shape[-1])


def _matrix_product_after_bias(args: tuple[Any, ...], output: Tensor) -> int:
    return _matrix_product(args[1:], output)


def _convolution(args: tuple[Any, ...], output: Tensor) -> int:
    x, weight, transposed = args[0], args[1], args[6]
    # Each value of the output (of the input, where transposed) meets one filter: channels of a group × kernel.
    return int((x if transposed else output).numel() * math.prod(weight.shape[1:]))


def _attention(args: tuple[Any, ...], output: Any) -> int:
    del output
    query, key, value = args[:3]
    scores = math.prod(query.shape[:-1]) * key.shape[-2]
    return int(scores * (query.shape[-1] + value.shape[-1]))


_RULES: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten.mm: _matrix_product,
    aten.bmm: _matrix_product,
    aten.mv: _matrix_product,
    aten.dot: lambda args, output: int(args[0].numel()),
    aten.linear: _matrix_product,
    aten.addmm: _matrix_product_after_bias,
    aten.baddbmm: _matrix_product_after_bias,
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}

_FREE_TAGS = {torch.Tag.pointwise, torch.Tag.view_copy, torch.Tag.inplace_view}


def _computes_nothing(func: Any) -> bool:
    name = str(func.overloadpacket).partition(".")[2]
    return bool(func.is_view or _FREE_TAGS & set(func.tags) or name in FREE_OPS)


@contextlib.contextmanager
def _layer_names(model: nn.Module) -> Iterator[list[str]]:
    """Keep a stack of the paths of the modules that are running."""
    stack = [""]
    handles = []
    for path, module in model.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(lambda _m, _x, path=path: stack.append(path)))
            handles.append(module.register_forward_hook(lambda _m, _x, _y: _pop(stack)))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def _pop(stack: list[str]) -> None:
    stack.pop()


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
