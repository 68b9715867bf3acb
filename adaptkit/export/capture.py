"""A model captured by torch.export, with any batch size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

from adaptkit.errors import ModelError

BATCH = "batch"


def capture_program(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Capture a model as it stands, for every batch size from one on.

    Args:
        model: Any module that torch.export captures.
        example_inputs: Inputs of one call, batch first.

    Raises:
        ModelError: The inputs have different batch sizes. What the model or torch.export raises comes as it is.

    Example:
        >>> class Pair(nn.Module):
        ...     def forward(self, a, b):
        ...         return torch.sub(*torch.cat([a, b]).chunk(2))
        >>> program = capture_program(Pair(), (torch.ones(2, 3), torch.zeros(2, 3)))
        >>> program.module()(torch.ones(5, 3), torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    # A batch of one would be burnt into the graph as a constant, and so would other strides than the usual: those of a
    # dimension of 1 may be any in what counts as contiguous.
    inputs = tuple(_usual(x if x.shape[0] > 1 else torch.cat([x, x])) for x in example_inputs)
    sizes = sorted({x.shape[0] for x in inputs})
    if len(sizes) > 1:
        raise ModelError(f"the inputs have batch sizes {' and '.join(map(str, sizes))}, which must be the same")
    batch = torch.export.Dim(BATCH, min=1)
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for x in inputs:
        shapes[x] = {0: batch}
    hook = model.register_forward_pre_hook(_same_batch, prepend=True)
    try:
        with _EvenParts():
            return torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
    finally:
        hook.remove()


def _usual(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _same_batch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Let the tracer know at once what it would only find at the end: that all inputs have the same batch size."""
    for x in inputs[1:]:
        torch._check(x.shape[0] == inputs[0].shape[0])


class _EvenParts(TorchFunctionMode):
    """Cut a batch into even parts by their sizes: their number alone would fix the batch size.

    Inputs joined for one pass through an encoder, as in networks for optical flow, are parted again so. torch counts
    the parts by ⌈size / part⌉, and its solver does not see that (3 n − 1) // n is 2 for every n.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call what was called, or a split by sizes in its place."""
        kwargs = kwargs or {}
        if func in _CUTS:
            named = dict(zip(_NAMES, args, strict=False)) | {_NAMES_OF.get(key, key): kwargs[key] for key in kwargs}
            sizes = _CUTS[func](**named)
            if sizes is not None:
                return torch.split(named["x"], sizes, named.get("dim", 0))
        return func(*args, **kwargs)


def _sizes_of_chunks(x: Tensor, parts: int, dim: int = 0) -> list[int] | None:
    size = x.shape[dim]
    even = isinstance(size, torch.SymInt) and statically_known_true(size % parts == 0)
    return [size // parts] * parts if even else None


def _sizes_of_split(x: Tensor, parts: int | Sequence[int], dim: int = 0) -> list[int] | None:
    size = x.shape[dim]
    if not (isinstance(size, torch.SymInt) and isinstance(parts, torch.SymInt)):
        return None
    count = (size // parts).node.maybe_as_int()
    return [parts] * count if count and statically_known_true(size == parts * count) else None


_CUTS = {
    torch.chunk: _sizes_of_chunks,
    Tensor.chunk: _sizes_of_chunks,
    torch.split: _sizes_of_split,
    Tensor.split: _sizes_of_split,
}
_NAMES = ("x", "parts", "dim")
_NAMES_OF = dict.fromkeys(("input", "tensor", "self"), "x") | dict.fromkeys(
    ("chunks", "split_size", "split_size_or_sections"), "parts"
)
