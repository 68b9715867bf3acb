"""ONNX files whose inputs leave more open than the batch, with those dimensions filled in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from adaptkit.errors import ModelError
from adaptkit.export.files import file_bytes, read_model
from adaptkit.profiling.named import Sample

_ONE_FILE = 2**31 - 2**24


def fix_shapes(path: Path, samples: Sequence[Sample], target: Path) -> None:
    """Write a copy of an ONNX file whose inputs have the sizes of given samples; the batch stays as it is.

    Args:
        path: The file.
        samples: One for each input, in order.
        target: Of the copy.

    Raises:
        ModelError: The samples do not fit the inputs.
    """
    proto = read_model(path)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != len(samples):
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{path} takes {len(inputs)} inputs ({names}); {len(samples)} shapes were given")
    for value, sample in zip(inputs, samples, strict=True):
        _fix(value, sample.shape, path)
    # What was inferred for the open sizes no longer holds.
    del proto.graph.value_info[:]
    onnx.save(proto, target, save_as_external_data=file_bytes(path) > _ONE_FILE)


def _fix(value: onnx.ValueInfoProto, shape: tuple[int, ...], path: Path) -> None:
    dims = value.type.tensor_type.shape.dim
    known = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims[1:]]
    if len(known) != len(shape) or any(size not in (None, given) for size, given in zip(known, shape, strict=True)):
        want = "x".join("?" if size is None else str(size) for size in known)
        raise ModelError(f"{path}: a sample of input {value.name} is {want}; {'x'.join(map(str, shape))} was given")
    for dim, size in zip(dims[1:], shape, strict=True):
        dim.dim_value = size
