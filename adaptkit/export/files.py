"""ONNX files on the disk: whole or not there, with the weights inside or beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from adaptkit.errors import ModelError
from adaptkit.export.held import Held, check_graph, fill_in
from adaptkit.export.outside import files_beside
from adaptkit.export.sparse import make_dense, store_sparse
from adaptkit.files import write_atomically

_LIMIT = 2**31 - 1
_SMALLEST_OUTSIDE = 1024
_ALIGNMENT = 64


def write_model(proto: onnx.ModelProto, path: Path, single_file: bool = True, held: Held | None = None) -> None:
    """Check a model and write it, in one step that a kill cannot split; constants with many zeros become sparse.

    With `single_file` off, weights go to `NAME.HASH.data` beside the file; the hash keeps an older file and its data
    together until the new one has taken its place.

    Args:
        proto: The model; its sparse weights change their form, large ones are taken out where they go outside.
        path: Of the .onnx file; its folder must exist.
        single_file: Keep the weights inside.
        held: Large constants that are not in the model itself; see `held.hold_back`.

    Raises:
        ModelError: The model is not valid ONNX, or too large for one file.
        RunFolderError: The disk is full or the folder cannot be written.
    """
    held = held or {}
    store_sparse(proto, held)
    try:
        check_graph(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    stale = set(path.parent.glob(f"{path.name}.*.data"))
    if not single_file:
        stale.discard(_move_weights_out(proto, path, held))
    size = proto.ByteSize() + (sum(value.nbytes for value in held.values()) if single_file else 0)
    if size > _LIMIT:
        raise ModelError(
            f"an ONNX file holds at most 2 GB, this model has {size / 1e9:.1f} GB: set export.single_file to false"
        )
    if single_file:
        fill_in(proto, held)
    write_atomically(path, proto.SerializeToString(deterministic=True))
    for old in stale:
        old.unlink()


def read_model(path: Path, *, weights_beside: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; sparse constants come as plain ones.

    Args:
        path: Of the .onnx file.
        weights_beside: Read the weights that lie beside the file, too. They are checked in any case.

    Raises:
        ModelError: It is missing, damaged or over 2 GB, or weights beside it are missing or outside its folder.
    """
    proto = _parsed(path)
    beside = files_beside(proto, path)
    try:
        if beside and weights_beside:
            external_data_helper.load_external_data_for_model(proto, str(path.parent))
        return make_dense(proto)
    except Exception as error:  # onnx and numpy answer damaged constants with errors of many kinds
        raise ModelError(f"{path} is damaged, its constants do not fit ({error}): export or copy it again") from error


def file_bytes(path: Path) -> int:
    """Give the bytes of an ONNX file together with the weights beside it.

    Raises:
        ModelError: As `read_model`.
    """
    return sum(file.stat().st_size for file in (path, *files_beside(_parsed(path), path)))


def _parsed(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path} is not there: give an ONNX file")
    size = path.stat().st_size
    if size > _LIMIT:
        raise ModelError(
            f"{path} has {size / 1e9:.1f} GB, and an ONNX file holds at most 2 GB: keep the weights beside it, "
            "with onnx.save(..., save_as_external_data=True) or export.single_file: false"
        )
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"{path} is no whole ONNX file ({error}): export or copy it again") from error
    if not proto.HasField("graph"):
        raise ModelError(f"{path} holds no graph: it is empty or no ONNX file; export or copy it again")
    if not all(isinstance(text, str) for text in _texts(proto)):
        raise ModelError(f"{path} is damaged, names in it are no text: export or copy it again")
    return proto


def _texts(proto: onnx.ModelProto) -> Iterator[Any]:
    """Yield names and notes of a model; what is no text in a damaged file comes as bytes."""
    for entry in (*proto.metadata_props, *proto.opset_import):
        yield from (entry.key, entry.value) if isinstance(entry, onnx.StringStringEntryProto) else (entry.domain,)
    yield from _texts_of_graph(proto.graph)


def _texts_of_graph(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph.name
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield named.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _texts_of_graph(inner)


def _move_weights_out(proto: onnx.ModelProto, path: Path, held: Held) -> Path:
    outside = [t for t in proto.graph.initializer if t.name in held or len(t.raw_data) >= _SMALLEST_OUTSIDE]
    digest = hashlib.sha256()
    for piece in _pieces(outside, held):
        digest.update(piece)
    target = path.with_name(f"{path.name}.{digest.hexdigest()[:12]}.data")
    write_atomically(target, _pieces(outside, held))
    end = 0
    for tensor in outside:
        start, length = end + -end % _ALIGNMENT, len(_bytes(tensor, held))
        _point_to(tensor, target.name, start, length)
        end = start + length
    return target


def _point_to(tensor: onnx.TensorProto, file: str, start: int, length: int) -> None:
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", start), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _pieces(tensors: list[onnx.TensorProto], held: Held) -> Iterator[Any]:
    """Yield the bytes of constants one after the other, each at a multiple of the alignment."""
    end = 0
    for tensor in tensors:
        padding = -end % _ALIGNMENT
        content = _bytes(tensor, held)
        yield bytes(padding)
        yield content
        end += padding + len(content)


def _bytes(tensor: onnx.TensorProto, held: Held) -> Any:
    if tensor.name not in held:
        return tensor.raw_data
    return np.ascontiguousarray(held[tensor.name]).reshape(-1).view(np.uint8)
