"""Why a layer is slow: what it does, held against what the machine can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptkit.profiling.machine import bandwidth
from adaptkit.report.numbers import digits
from adaptkit.report.schema import Machine

_BLOCK = 16
_NEAR = 0.5
"""From this share of its roof on, a layer does what it can."""
_STARTS = 4.0
"""A layer that takes less than so many times the start of a kernel is mostly start."""
_MOVERS = {
    "Cast",
    "Concat",
    "DequantizeLinear",
    "Expand",
    "Gather",
    "QuantizeLinear",
    "ReorderInput",
    "ReorderOutput",
    "Slice",
    "Split",
    "Tile",
    "Transpose",
}


@dataclass(frozen=True)
class Facts:
    """What is known of a layer.

    Args:
        ops: Types of the kernels that ran for it.
        macs: In a call.
        bytes: Read and written in a call.
        weight_bytes: Those of them that are constants.
        all_weight_bytes: Of the constants of the whole network, which pass through the caches between two calls.
        time_us: Of a call, None where no kernel was found.
        kernels: How many ran in a call.
        integer: Whether it multiplies 8-bit integers.
        depthwise: Whether every channel has a filter of its own.
        channels: Of input and output; empty where nothing is multiplied.
        blocked: Whether its convolutions ran on blocks of channels, as the fast float kernel does.
        among_integers: Whether other layers of the file multiply 8-bit integers.
    """

    ops: tuple[str, ...]
    macs: int
    bytes: int
    time_us: float | None
    weight_bytes: int = 0
    all_weight_bytes: int = 0
    kernels: int = 1
    integer: bool = False
    depthwise: bool = False
    channels: tuple[int, ...] = ()
    blocked: bool = False
    among_integers: bool = False


@dataclass(frozen=True)
class Roof:
    """The lower of two roofs.

    Args:
        bound: Which it is.
        time_us: The least time by it.
    """

    bound: Literal["compute", "memory"]
    time_us: float


def roof(facts: Facts, machine: Machine) -> Roof:
    """Give the roof of a layer: t = max(2 · MACs / peak, bytes / bandwidth) (Williams et al. 2009, "Roofline").

    The peak is that of its type. Activations were written just before: their bandwidth is that of the cache which so
    many bytes fit. Weights come from the cache which those of the whole network fit, or from memory.

    Example:
        >>> from adaptkit.report.schema import Bandwidth
        >>> sizes = [Bandwidth(bytes=10**9, gb_per_s=10)]
        >>> machine = Machine(threads=1, gflops=100, int8_gops=400, bandwidths=sizes, start_us=1)
        >>> roof(Facts(("Conv",), macs=10**6, bytes=50_000, time_us=30), machine)
        Roof(bound='compute', time_us=20.0)
        >>> roof(Facts(("Conv",), macs=10**6, bytes=50_000, time_us=30, integer=True), machine)
        Roof(bound='memory', time_us=5.0)
    """
    products = _products_us(facts, machine)
    weights, activations = facts.weight_bytes, facts.bytes - facts.weight_bytes
    moves = weights / 1000 / bandwidth(machine, facts.all_weight_bytes)
    moves += activations / 1000 / bandwidth(machine, activations)
    return Roof("compute", products) if products > moves else Roof("memory", moves)


def _products_us(facts: Facts, machine: Machine) -> float:
    return 2 * facts.macs / 1000 / (machine.int8_gops if facts.integer else machine.gflops)


def slow_reason(facts: Facts, machine: Machine) -> str:
    """Say in a few words why a layer is slow; empty where it does what the machine can, or was not measured.

    Args:
        facts: Of the layer.
        machine: Measured with the same number of threads.
    """
    if not facts.time_us:
        return ""
    lowest = roof(facts, machine)
    reached = lowest.time_us / facts.time_us
    if facts.macs and facts.among_integers and not facts.integer:
        return "float between 8-bit layers"
    if _products_us(facts, machine) / facts.time_us >= _NEAR:
        return ""
    if reached >= _NEAR:
        return f"memory-bound: {_speed(facts)}"
    if facts.time_us < _STARTS * machine.start_us * facts.kernels:
        return "overhead-bound: so small that starting it dominates"
    if facts.ops and set(facts.ops) <= _MOVERS:
        return "moves or converts data, computes nothing"
    return f"{_kernel(facts)} ({100 * reached:.0f} % of the {lowest.bound} roof)"


def _speed(facts: Facts) -> str:
    return f"{digits(facts.bytes / 1000 / (facts.time_us or 1))} GB/s, {_few(facts)} FLOPs for a byte"


def _few(facts: Facts) -> str:
    return digits(2 * facts.macs / facts.bytes) if facts.macs else "no"


def _kernel(facts: Facts) -> str:
    odd = [count for count in facts.channels if count % _BLOCK]
    if facts.depthwise:
        return "depthwise: each byte is used for one channel only"
    if "ConvTranspose" in facts.ops:
        return "kernel without fast path: transposed convolution"
    if "Conv" in facts.ops and not facts.blocked:
        return "kernel without fast path: not on blocks of channels"
    if "Conv" in facts.ops and odd:
        return f"{odd[0]} channels: kernels work on blocks of {_BLOCK}"
    if not facts.macs:
        return "kernel slower than its bytes"
    return "no reason found"
