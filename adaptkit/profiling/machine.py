"""What ONNX Runtime reaches on this machine: peak products and peak bytes a second, by a small measurement."""

from __future__ import annotations

from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptkit.profiling.inputs import random_feeds
from adaptkit.profiling.kernels import run_kernels
from adaptkit.report.schema import Bandwidth, Machine

_SIDE = 384
"""Of the square matrices: a product is long for a clock of microseconds, and short for a scheduler that interrupts."""
_FLOATS = (2**15, 2**19, 2**21, 2**24)
"""In each of three arrays: 384 KB, 6, 24 and 192 MB in all, for a core's own cache, shared ones, and memory."""
_REPEATS = 31
_OPSET = 20


def measure_machine(threads: int = 1) -> Machine:
    """Measure the roofs that layers are held against, with the runtime's own kernels; takes a second or two.

    Products: 2 · 384³ FLOPs over the time of a product of two 384 × 384 matrices, one of them constant, in float32 and
    in 8 bits. Bytes: 12 n over the time of z = x + y with n floats each, two read and one written (STREAM's "Add",
    McCalpin 1995), at sizes that fit different caches. Start: a Relu of one number. Times are those of the kernels
    alone, by ONNX Runtime's profiler, each the median of 31 calls: what a layer can be expected to reach, not what the
    data sheet says.

    Args:
        threads: Threads within an operator.
    """
    work = 2 * _SIDE**3 / 1000
    return Machine(
        threads=threads,
        gflops=work / _microseconds(_product("MatMul", np.float32), _SIDE, threads),
        int8_gops=work / _microseconds(_product("MatMulInteger", np.uint8), _SIDE, threads),
        bandwidths=[
            Bandwidth(bytes=12 * count, gb_per_s=12 * count / 1000 / _microseconds(_sum(count), 1, threads))
            for count in _FLOATS
        ],
        start_us=_microseconds(_model([helper.make_node("Relu", ["x"], ["y"])], ["x"], 1), 1, threads),
    )


def bandwidth(machine: Machine, moved: int) -> float:
    """Give the GB/s for a layer that moves so many bytes: measured at the next larger size, or at the largest.

    Example:
        >>> sizes = [Bandwidth(bytes=1000, gb_per_s=40), Bandwidth(bytes=9000, gb_per_s=10)]
        >>> machine = Machine(threads=1, gflops=1, int8_gops=1, bandwidths=sizes, start_us=1)
        >>> [bandwidth(machine, moved) for moved in (10, 1000, 1001, 10**6)]
        [40.0, 40.0, 10.0, 10.0]
    """
    fitting = (entry for entry in machine.bandwidths if moved <= entry.bytes)
    return next(fitting, machine.bandwidths[-1]).gb_per_s


def _microseconds(model: onnx.ModelProto, batch_size: int, threads: int) -> float:
    run = run_kernels(
        model.SerializeToString(),
        lambda session: random_feeds(session, batch_size, 0, "the measurement"),
        threads=threads,
        repeats=_REPEATS,
    )
    # A kernel below the clock's microsecond counts as one.
    return max(median(run.kernels[0].durations), 1.0)


def _product(op: str, kind: type[np.generic]) -> onnx.ModelProto:
    weight = np.random.default_rng(0).integers(0, 100, (_SIDE, _SIDE)).astype(kind)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    node = helper.make_node(op, ["x", "w"], ["y"])
    return _model([node], ["x"], _SIDE, element, [numpy_helper.from_array(weight, "w")])


def _sum(count: int) -> onnx.ModelProto:
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], ["x", "w"], count)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[str],
    width: int,
    kind: int = TensorProto.FLOAT,
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    takes = [helper.make_tensor_value_info(name, kind, ["batch", width]) for name in inputs]
    graph = helper.make_graph(nodes, "machine", takes, [onnx.ValueInfoProto(name="y")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
