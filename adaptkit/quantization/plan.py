"""The scale table: every figure of a quantization, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from adaptkit.errors import ModelError

VERSION = 3

Overflow = Literal["saturate", "wrap"]
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Grid:
    """The integers that stand for one tensor: x ≈ scale · (q − zero_point), lowest ≤ q ≤ highest.

    Args:
        scale: One value, or one a channel; every value is exact in float32.
        zero_point: As many as scales.
        bits: 8 or fewer for weights and activations (stored in 8), 32 for biases.
        signed: Whether q may be negative.
        axis: The channel dimension, None for one scale. With blocks 0: a weight counts as a matrix out × K then.
        block: One scale for each `block` neighbours of the K weights of an output channel, the last block may be short.
        odd: Only odd integers, -(2ᵇ - 1) … 2ᵇ - 1: with one or two bits, a level at zero would be a waste.

    Example:
        >>> grid = Grid((0.5,), (128,), bits=8, signed=False)
        >>> grid.lowest, grid.highest
        (0, 255)
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    bits: int = 8
    signed: bool = True
    axis: int | None = None
    odd: bool = False
    block: int | None = None

    def __post_init__(self) -> None:
        """Refuse a table whose parts do not fit together."""
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise ModelError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points do not fit together")
        if self.axis is None and len(self.scale) != 1:
            raise ModelError(f"{len(self.scale)} scales need an axis")
        if not all(0 < scale < float("inf") for scale in self.scale):
            raise ModelError(f"scales must be positive and finite: got {min(self.scale)} … {max(self.scale)}")
        if self.odd and (not self.signed or any(self.zero_point) or self.bits > 7):
            raise ModelError("a grid of odd integers is signed, symmetric and of at most 7 bits")
        if not all(self.lowest <= zero <= self.highest for zero in self.zero_point):
            raise ModelError(f"zero points must be between {self.lowest} and {self.highest}: got {self.zero_point}")

    @property
    def lowest(self) -> int:
        """The smallest integer of the grid."""
        if self.odd:
            return 1 - (1 << self.bits)
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest integer of the grid."""
        if self.odd:
            return (1 << self.bits) - 1
        return (1 << self.bits - 1) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True)
class Accumulator:
    """How the products of a layer are summed in an accelerator.

    Args:
        bits: Width of a partial sum that is kept, two's complement.
        tile: Products that are summed exactly before they are added to it.
        overflow: Whether a sum that does not fit stops at the end of the range or wraps around.
        shift: Lowest bits that are dropped before a sum is kept; the kept one counts in steps of 2^shift.
    """

    bits: int
    tile: int
    overflow: Overflow = "saturate"
    shift: int = 0


@dataclass(frozen=True)
class ExampleInput:
    """What the capture of a model has to know of one of its inputs.

    Args:
        shape: Batch first.
        dtype: Type of the values, by its name in torch; token numbers are "int64".
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse a type that no input has."""
        if self.dtype not in _DTYPES:
            raise ModelError(f"an input is of type {self.dtype}: give one of {', '.join(_DTYPES)}")


@dataclass(frozen=True)
class QuantizationPlan:
    """Which tensors of a captured model are quantized, and how.

    Simulator and ONNX file are both made from it, so what was simulated is what is exported. A key is the name of an
    operation in the captured graph (`relu_3`: its output), or that name with `.weight` or `.bias`, or the name of an
    input of the model.

    Args:
        tensors: Key to grid.
        inputs: The example inputs the model was captured with.
        dynamic: Names of linear layers whose input gets its range anew in every call.
        formats: Key of a weight that is stored in 16 bits to "float16" or "bfloat16".
        accumulators: Name of a layer to how its partial sums are kept; 32 bits where it has none.

    Example:
        >>> plan = QuantizationPlan({"relu": Grid((0.1,), (0,), signed=False)}, (ExampleInput((1, 3, 32, 32)),))
        >>> QuantizationPlan.from_json(plan.to_json()) == plan
        True
    """

    tensors: Mapping[str, Grid] = field(default_factory=dict)
    inputs: tuple[ExampleInput, ...] = ()
    dynamic: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    accumulators: Mapping[str, Accumulator] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """All tensors that are rounded, in the order in which the simulator gets its modules."""
        return (*self.tensors, *self.formats, *(f"{layer}.input" for layer in self.dynamic))

    def to_json(self) -> str:
        """Write the plan as one JSON document; the same plan gives the same text."""
        document = {
            "version": VERSION,
            "inputs": [asdict(example) for example in self.inputs],
            "tensors": {key: asdict(grid) for key, grid in self.tensors.items()},
            "dynamic": self.dynamic,
            "formats": dict(self.formats),
            "accumulators": {key: asdict(accumulator) for key, accumulator in self.accumulators.items()},
        }
        return json.dumps(document, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> QuantizationPlan:
        """Read what `to_json` wrote.

        Raises:
            ModelError: The text is no plan, or one of another version.
        """
        try:
            document = json.loads(text)
            if document["version"] != VERSION:
                raise ModelError(
                    f"quantization plan of version {document['version']}: this adaptkit reads {VERSION}, "
                    "quantize the model again"
                )
            tensors = {key: _grid(entry) for key, entry in document["tensors"].items()}
            inputs = tuple(
                ExampleInput(tuple(int(size) for size in entry["shape"]), entry["dtype"])
                for entry in document["inputs"]
            )
            accumulators = {key: Accumulator(**entry) for key, entry in document["accumulators"].items()}
            return QuantizationPlan(
                tensors, inputs, tuple(document["dynamic"]), dict(document["formats"]), accumulators
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the quantization plan is damaged ({error}): quantize the model again") from error


def _grid(entry: dict[str, Any]) -> Grid:
    scale, zero_point = entry.pop("scale"), entry.pop("zero_point")
    return Grid(tuple(scale), tuple(zero_point), **entry)
