"""Functions a recipe names as module:function."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError


def call_named(name: str, args: dict[str, Any], folder: Path, error: type[AdaptkitError]) -> Any:
    """Import and call a function; modules beside the recipe are found first.

    Args:
        name: module:function.
        args: Keyword arguments.
        folder: The recipe's folder.
        error: What to raise when this fails; its message holds what the user's code said.

    Example:
        >>> call_named("math:sqroot", {}, Path("."), AdaptkitError)
        Traceback (most recent call last):
        ...
        adaptkit.errors.AdaptkitError: python: math has no function sqroot; did you mean sqrt?
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise error(f"python: {name!r} is no module:function, such as my_package.build:make")
    with _importable(folder, module_name):
        try:
            module = importlib.import_module(module_name)
        except Exception as cause:
            raise error(f"python: cannot import {module_name}: {type(cause).__name__}: {cause}") from cause
        function = getattr(module, function_name, None)
        if not callable(function):
            near = difflib.get_close_matches(function_name, dir(module), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise error(f"python: {module_name} has no function {function_name}{hint}")
        try:
            return function(**args)
        except AdaptkitError:
            raise
        except Exception as cause:
            raise error(f"{name} failed: {type(cause).__name__}: {cause}") from cause


@contextmanager
def _importable(folder: Path, module_name: str) -> Iterator[None]:
    """Put the folder first on the import path for a while; a module of the same name from elsewhere gives way."""
    here = str(folder.resolve())
    loaded = sys.modules.get(module_name)
    beside = [folder.resolve() / f"{module_name}.py", folder.resolve() / module_name / "__init__.py"]
    if loaded is not None and any(path.exists() and str(path) != loaded.__file__ for path in beside):
        del sys.modules[module_name]
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
