"""ONNX files on the disk: whole or not there, with the weights inside or beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from adaptkit.errors import ModelError
from adaptkit.export.sparse import make_dense, store_sparse
from adaptkit.files import write_atomically

_LIMIT = 2**31 - 1
_SMALLEST_OUTSIDE = 1024
_ALIGNMENT = 64


def write_model(proto: onnx.ModelProto, path: Path, single_file: bool = True) -> None:
    """Check a model and write it, in one step that a kill cannot split; constants with many zeros become sparse.

    With `single_file` off, weights go to `NAME.HASH.data` beside the file; the hash keeps an older file and its data
    together until the new one has taken its place.

    Args:
        proto: The model; its sparse weights change their form, large ones are taken out where they go outside.
        path: Of the .onnx file; its folder must exist.
        single_file: Keep the weights inside.

    Raises:
        ModelError: The model is not valid ONNX, or too large for one file.
        RunFolderError: The disk is full or the folder cannot be written.
    """
    store_sparse(proto)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise ModelError(_too_large(proto)) from error
    stale = set(path.parent.glob(f"{path.name}.*.data"))
    if not single_file:
        stale.discard(_move_weights_out(proto, path))
    if proto.ByteSize() > _LIMIT:
        raise ModelError(_too_large(proto))
    write_atomically(path, proto.SerializeToString(deterministic=True))
    for old in stale:
        old.unlink()


def read_model(path: Path, *, weights_beside: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; sparse constants come as plain ones.

    Args:
        path: Of the .onnx file.
        weights_beside: Read the weights that lie beside the file, too.
    """
    return make_dense(onnx.load(path, load_external_data=weights_beside))


def file_bytes(path: Path) -> int:
    """Give the bytes of an ONNX file together with the weights beside it."""
    proto = onnx.load(path, load_external_data=False)
    beside = {
        entry.value for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    names = [path.name, *sorted(beside)]
    return sum(int(path.with_name(name).stat().st_size) for name in names)


def _too_large(proto: onnx.ModelProto) -> str:
    size = proto.ByteSize() / 1e9
    return f"an ONNX file holds at most 2 GB, this model has {size:.1f} GB: set export.single_file to false"


def _move_weights_out(proto: onnx.ModelProto, path: Path) -> Path:
    data = bytearray()
    moved: list[tuple[onnx.TensorProto, int, int]] = []
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) >= _SMALLEST_OUTSIDE:
            data.extend(b"\0" * (-len(data) % _ALIGNMENT))
            moved.append((tensor, len(data), len(tensor.raw_data)))
            data.extend(tensor.raw_data)
    target = path.with_name(f"{path.name}.{hashlib.sha256(data).hexdigest()[:12]}.data")
    write_atomically(target, bytes(data))
    for tensor, offset, length in moved:
        set_external_data(tensor, target.name, offset, length)
        tensor.ClearField("raw_data")
    return target
