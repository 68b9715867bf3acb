"""Weights of fewer than eight bits in an ONNX file: as planes of bits, which ONNX Runtime unpacks when it opens it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptkit.quantization.plan import Grid

DOMAIN = "adaptkit"
UNPACK = "Unpack"
_OPSET = 20
_Array = np.ndarray[Any, Any]


def pack_bits(integers: _Array, grid: Grid) -> _Array:
    """Write integers as planes of bits.

    Plane j holds bit j of (q − lowest) / step, eight values a byte, the first in the lowest bit; step is 2 for a grid
    of odd integers, else 1.

    Args:
        integers: Values of the grid, any shape.
        grid: Of at most 7 bits.

    Returns:
        uint8, bits × ⌈size / 8⌉ × 1.

    Example:
        >>> pack_bits(np.array([-2, 1, -1]), Grid((1.0,), (0,), bits=2)).ravel().tolist()
        [6, 2]
    """
    codes = (integers.ravel().astype(np.int64) - grid.lowest) // (2 if grid.odd else 1)
    planes = [np.packbits((codes >> bit & 1).astype(np.uint8), bitorder="little") for bit in range(grid.bits)]
    return np.stack(planes)[:, :, None]


def unpack_bits(planes: _Array, grid: Grid, shape: tuple[int, ...]) -> _Array:
    """Read what `pack_bits` wrote.

    Example:
        >>> grid = Grid((1.0,), (0,), bits=3)
        >>> unpack_bits(pack_bits(np.array([[3, -4]]), grid), grid, (1, 2)).tolist()
        [[3, -4]]
    """
    bits = np.unpackbits(planes[:, :, 0], axis=1, bitorder="little", count=int(np.prod(shape))).astype(np.int64)
    codes = (bits << np.arange(len(bits))[:, None]).sum(0)
    integers: _Array = (codes * (2 if grid.odd else 1) + grid.lowest).astype(np.int8).reshape(shape)
    return integers


def unpack_constants(grid: Grid, shape: tuple[int, ...]) -> dict[str, _Array]:
    """Give the further inputs of an Unpack node, by names that equal constants share."""
    size, step = int(np.prod(shape)), 2 if grid.odd else 1
    powers = np.array([[step << bit for bit in range(grid.bits)]], np.uint8)
    return {
        f"unpack_powers_{grid.bits}_{step}": powers,
        f"unpack_lowest_{-grid.lowest}": np.array(grid.lowest, np.int32),
        f"unpack_size_{size}": np.array([size], np.int64),
        f"unpack_shape_{'_'.join(map(str, shape))}": np.array(shape, np.int64),
    }


def add_unpack(proto: onnx.ModelProto) -> None:
    """Define the operation `adaptkit.Unpack` in a model: one bit of every byte, weighted by its plane, summed.

    ONNX Runtime computes it once, on opening the file, since all its inputs are constants; the kernels then see plain
    int8 weights.
    """
    proto.functions.append(_unpack())
    if DOMAIN not in {entry.domain for entry in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _unpack() -> onnx.FunctionProto:
    def constant(name: str, value: _Array) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

    nodes = [
        constant("eight", np.arange(8, dtype=np.uint8)),
        constant("one", np.array(1, np.uint8)),
        constant("flat", np.array([0, -1], np.int64)),
        constant("start", np.array([0], np.int64)),
        constant("along", np.array([1], np.int64)),
        helper.make_node("BitShift", ["planes", "eight"], ["shifted"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["shifted", "one"], ["bits"]),
        helper.make_node("Reshape", ["bits", "flat"], ["rows"]),
        helper.make_node("MatMulInteger", ["powers", "rows"], ["sums"]),
        helper.make_node("Slice", ["sums", "start", "size", "along"], ["codes"]),
        helper.make_node("Add", ["codes", "lowest"], ["values"]),
        helper.make_node("Cast", ["values"], ["narrow"], to=TensorProto.INT8),
        helper.make_node("Reshape", ["narrow", "shape"], ["weight"]),
    ]
    inputs = ["planes", "powers", "lowest", "size", "shape"]
    return helper.make_function(DOMAIN, UNPACK, inputs, ["weight"], nodes, [helper.make_opsetid("", _OPSET)])
