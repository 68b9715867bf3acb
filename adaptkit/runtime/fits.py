"""Whether ONNX files are the ones that a manifest describes: names, types and sizes of what goes in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort

from adaptkit.errors import ModelError

_OTHER_NAMES = {"float32": "float", "float64": "double"}
"""What ONNX Runtime calls types that numpy calls otherwise."""


class Tensor(Protocol):
    """What a manifest says of a tensor: its name, numpy's name of its type, its shape without the batch."""

    @property
    def name(self) -> str:
        """In the file."""

    @property
    def dtype(self) -> str:
        """Such as float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""


def check_fits(
    session: ort.InferenceSession, path: Path, takes: Tensor | None, gives: Iterable[Tensor | str | None]
) -> None:
    """Refuse a file that takes or gives something else than its manifest says.

    Args:
        session: Of the file.
        path: Of the file.
        takes: Its only input; None where the manifest does not say.
        gives: Outputs; of those that are known by name alone, only the name is looked for. None counts for nothing.

    Raises:
        ModelError: It does; sizes that the file leaves open fit all.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    if len(inputs) != 1 or (takes is not None and takes.name not in inputs):
        wanted = "one input" if takes is None else repr(takes.name)
        raise ModelError(f"{path} takes {', '.join(inputs) or 'nothing'}, not {wanted}: export the model again")
    if takes is not None:
        _check_form(inputs[takes.name], takes.dtype, takes.shape, path)
    outputs = {value.name: value for value in session.get_outputs()}
    for given in gives:
        name = given if given is None or isinstance(given, str) else given.name
        if name is not None and name not in outputs:
            raise ModelError(f"{path} does not give {name!r}, which its manifest names: export the model again")
        if given is not None and not isinstance(given, str):
            _check_form(outputs[given.name], given.dtype, given.shape, path)


def _check_form(found: Any, dtype: str, shape: Sequence[int], path: Path) -> None:
    wanted = f"tensor({_OTHER_NAMES.get(dtype, dtype)})"
    sizes = found.shape[1:]
    same_rank = len(sizes) == len(shape) or not found.shape  # a file may leave everything open
    if found.type != wanted or not same_rank or any(_differ(*pair) for pair in zip(sizes, shape, strict=False)):
        raise ModelError(
            f"{path}: {found.name} is {_form(found.type, sizes)} for a sample, its manifest says "
            f"{_form(wanted, shape)}: export the model again"
        )


def _differ(found: Any, wanted: int) -> bool:
    return isinstance(found, int) and found != wanted


def _form(kind: str, sizes: Sequence[Any]) -> str:
    return f"{kind} of {' × '.join(map(str, sizes)) or '1'}"
