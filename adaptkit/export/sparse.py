"""Constants with many zeros in an ONNX file: stored as values and indices, where that is smaller."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from adaptkit.export.held import Held, array_of, keep_only

Array: TypeAlias = np.ndarray[Any, Any]

_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_SMALLEST = 256
_MOST = 2**31
_FRAME = 64
"""Bytes that the second tensor of a sparse one takes besides its numbers, at most."""


def store_sparse(proto: onnx.ModelProto, held: Held | None = None) -> None:
    """Move constants into `sparse_initializer` where their values and indices take fewer bytes than all their entries.

    An index is the position in the flattened tensor, written in as few groups of 7 bits as it needs. ONNX Runtime makes
    such a constant dense when it opens the file: the file is smaller, the computation is the same.

    Args:
        proto: Changed in place.
        held: Large constants that are not in the model itself; those that become sparse are taken out.
    """
    held = {} if held is None else held
    dense: set[str] = set()
    for tensor in proto.graph.initializer:
        sparse = _sparse(tensor, held)
        if sparse is None:
            dense.add(tensor.name)
        else:
            proto.graph.sparse_initializer.append(sparse)
            held.pop(tensor.name, None)
    keep_only(proto.graph, dense)


def make_dense(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn every sparse constant back into a plain one, in place, as readers of a graph expect it."""
    for sparse in proto.graph.sparse_initializer:
        if np.prod(sparse.dims, dtype=float) > _MOST:
            raise ValueError(f"{sparse.values.name} would have {list(sparse.dims)} entries, more than a file can hold")
        values = numpy_helper.to_array(sparse.values)
        full = np.zeros(int(np.prod(sparse.dims)), values.dtype)
        full[numpy_helper.to_array(sparse.indices)] = values
        proto.graph.initializer.append(numpy_helper.from_array(full.reshape(sparse.dims), sparse.values.name))
    del proto.graph.sparse_initializer[:]
    return proto


def index_bytes(indices: Array) -> int:
    """Count the bytes of whole numbers in groups of 7 bits.

    Example:
        >>> index_bytes(np.array([0, 127, 128, 16384]))
        7
    """
    return int(len(indices) + sum(int((indices >= 1 << 7 * groups).sum()) for groups in range(1, 9)))


def _sparse(tensor: onnx.TensorProto, held: Held) -> onnx.SparseTensorProto | None:
    if tensor.data_type not in _TYPES or int(np.prod(tensor.dims)) < _SMALLEST:
        return None
    flat = array_of(tensor, held).reshape(-1)
    if np.count_nonzero(flat) * (flat.itemsize + 1) >= flat.nbytes:
        return None
    indices = np.flatnonzero(flat)
    if index_bytes(indices) + len(indices) * flat.itemsize + _FRAME >= flat.nbytes:
        return None
    places = onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=[len(indices)])
    places.int64_data.extend(indices.tolist())
    return helper.make_sparse_tensor(numpy_helper.from_array(flat[indices], tensor.name), places, list(tensor.dims))
