"""Inputs to measure a file with, made from what it says it takes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort

from adaptkit.errors import ModelError

Feeds: TypeAlias = dict[str, np.ndarray[Any, Any]]

_NAMES = ["float16", "double", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    **{f"tensor({name})": np.dtype(name) for name in _NAMES},
}
"""The tensors that can be made, by ONNX Runtime's name of their type."""


def random_feeds(session: ort.InferenceSession, batch_size: int, seed: int, name: str) -> Feeds:
    """Make inputs for a session: normal random numbers, or zeros for what is no float.

    Raises:
        ModelError: The file fixes another batch size, leaves another dimension free, or takes no plain tensors.
    """
    generator = np.random.default_rng(seed)
    feeds: Feeds = {}
    for value in session.get_inputs():
        if value.shape and isinstance(value.shape[0], int) and value.shape[0] != batch_size:
            raise ModelError(
                f"{name} takes batches of {value.shape[0]} only; {batch_size} was asked for. Profile with that size"
            )
        shape, kind = _shape(value, batch_size, name), _kind(value, name)
        random = np.issubdtype(kind, np.floating)
        feeds[value.name] = generator.standard_normal(shape).astype(kind) if random else np.zeros(shape, kind)
    return feeds


def zero_feeds(session: ort.InferenceSession, batch_size: int, name: str) -> Feeds:
    """Make inputs of zeros; where a file fixes its batch size, of that size.

    Raises:
        ModelError: The file leaves another dimension free, or takes no plain tensors.
    """
    return {value.name: np.zeros(_shape(value, batch_size, name), _kind(value, name)) for value in session.get_inputs()}


def _shape(value: ort.NodeArg, batch_size: int, name: str) -> tuple[int, ...]:
    if not value.shape:
        return ()
    first, *rest = value.shape
    free = [size if isinstance(size, str) else "?" for size in rest if not isinstance(size, int)]
    if free:
        raise ModelError(
            f"{name}: input {value.name} has free dimensions besides the batch: {', '.join(free)}. Give the shape of a "
            "sample, such as --input 3x224x224, once for each input"
        )
    return (first if isinstance(first, int) else batch_size, *rest)


def _kind(value: ort.NodeArg, name: str) -> np.dtype[Any]:
    if value.type not in TYPES:
        raise ModelError(
            f"{name}: input {value.name} is {value.type}; adaptkit makes inputs of numbers only: cut the model so that "
            "it starts with tensors of them"
        )
    return TYPES[value.type]
