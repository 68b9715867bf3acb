"""Running calibration samples through a model while its layers are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batch, BatchSource, as_batches
from adaptkit.modes import evaluating

Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@contextmanager
def watched(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Put the model into evaluation mode and call a hook after each call of the layer of its name."""
    handles = [
        model.get_submodule(name).register_forward_hook(_by_position(hook), with_kwargs=True)
        for name, hook in hooks.items()
    ]
    try:
        with evaluating(model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _by_position(hook: Hook) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    """Give a hook the inputs in their order, named ones too."""
    return lambda module, inputs, named, output: hook(module, (*inputs, *named.values()), output)


def first_batches(data: BatchSource, samples: int) -> Iterator[Batch]:
    """Yield batches of at most so many samples in all.

    Raises:
        DataError: There is none.
    """
    seen = 0
    for x, y in as_batches(data):
        yield x[: samples - seen], y[: samples - seen]
        seen += len(x)
        if seen >= samples:
            return
    if seen == 0:
        raise DataError("the calibration data is empty: at least one batch is needed")


def rows(layer: nn.Module, values: Tensor) -> Tensor:
    """Return inputs or outputs of a convolution or linear layer as samples (pixels, tokens) × channels."""
    return (values.detach().movedim(1, -1) if isinstance(layer, nn.Conv2d) else values.detach()).flatten(0, -2)
