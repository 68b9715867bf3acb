"""The exporter's table of operators, read once in a process: reading it is two fifths of a small model's export."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MODULES = "onnxscript._framework_apis."
_READER = "get_torchlib_ops"


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Let the exporter look up its operators in what it read before, where this version of it works that way.

    Example:
        >>> with operators_read_once():
        ...     pass
    """
    modules = [module for name, module in sys.modules.items() if name.startswith(_MODULES) and hasattr(module, _READER)]
    readers = [getattr(module, _READER) for module in modules]
    try:
        for module, reader in zip(modules, readers, strict=True):
            setattr(module, _READER, _remembering(reader))
        yield
    finally:
        for module, reader in zip(modules, readers, strict=True):
            setattr(module, _READER, reader)


@functools.cache
def _remembering(reader: Callable[[], Any]) -> Callable[[], Any]:
    return functools.cache(reader)
