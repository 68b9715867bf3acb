"""Weights that lie beside an ONNX file: where a file says they are, and whether they are there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from adaptkit.errors import ModelError

_BITS: dict[int, int] = {
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
}
"""Types that share a byte; all others take whole bytes."""


_KNOWN = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}
"""Types of weights that may lie beside a file."""


def tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield every constant of a graph: its initializers, those in attributes of nodes, and those of graphs inside.

    Example:
        >>> constant = onnx.helper.make_node("Constant", [], ["c"], value=onnx.helper.make_tensor("v", 1, [2], [1, 2]))
        >>> [tensor.name for tensor in tensors(onnx.helper.make_graph([constant], "g", [], []))]
        ['v']
    """
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _in_nodes(graph.node)


def tensor_bytes(tensor: TensorProto) -> int:
    """Count the bytes that the values of a constant take, from its type and shape alone.

    Example:
        >>> tensor_bytes(TensorProto(data_type=TensorProto.FLOAT, dims=[2, 3]))
        24
        >>> tensor_bytes(TensorProto(data_type=TensorProto.INT4, dims=[3]))
        2
    """
    count = int(math.prod(tensor.dims))
    if tensor.data_type in _BITS:
        return (count * _BITS[tensor.data_type] + 7) // 8
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def files_beside(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """List the files with weights that a model names, and check them without reading them.

    Args:
        proto: Read from `path`.
        path: Of the .onnx file; its weights must lie in its folder.

    Raises:
        ModelError: A file is missing, too short, or outside the folder.
    """
    found: dict[str, Path] = {}
    sizes: dict[Path, int] = {}
    for tensor in _all_tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = _entries(tensor, path)
        where = entries.get("location", "")
        if where not in found:
            found[where] = _checked(where, path, tensor.name)
            sizes[found[where]] = found[where].stat().st_size
        length = tensor_bytes(tensor) if "length" not in entries else 0
        end = _number(entries, "offset", 0, path) + _number(entries, "length", length, path)
        if end > sizes[found[where]]:
            raise ModelError(
                f"{found[where]} has {sizes[found[where]]:,} bytes, and {path.name} needs {end:,} of it: "
                "it is cut off or of another export; copy both files again"
            )
    return sorted(found.values())


def _entries(tensor: TensorProto, path: Path) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    # What is no text in a damaged file comes as bytes.
    texts = [text for pair in entries.items() for text in pair]
    if tensor.data_type not in _KNOWN or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ModelError(f"{path} is damaged where it names weights beside it: export or copy it again")
    return entries


def _checked(where: str, path: Path, tensor: str) -> Path:
    absolute = PurePosixPath(where).is_absolute() or PureWindowsPath(where).anchor
    file, folder = path.parent / where, path.parent.resolve()
    if not where or absolute or not file.resolve().is_relative_to(folder):
        raise ModelError(
            f"{path} takes the weights of {tensor} from {where or 'nowhere'}, outside its own folder, which is "
            "refused: put them beside it, and save it with onnx.save(..., save_as_external_data=True)"
        )
    if not file.is_file():
        raise ModelError(f"{file} is missing, and {path.name} has its weights there: copy both files together")
    return file


def _number(entries: dict[str, str], key: str, default: int, path: Path) -> int:
    text = entries.get(key, str(default))
    if not text.isdecimal():
        raise ModelError(f"{path} is damaged: {key} of weights beside it is {text!r}; export the model again")
    return int(text)


def _all_tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from tensors(proto.graph)
    for function in proto.functions:
        yield from _in_nodes(function.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from tensors(graph)
