"""What travels along the graph: tensors whose dimensions carry the ids of channel elements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from adaptkit.pruning.capture import arguments_of, owner_of
from adaptkit.pruning.union_find import Ids, UnionFind


@dataclass(frozen=True)
class Block:
    """The ids of one dimension, or of several jointly (a channel dimension viewed as heads × head size).

    Args:
        dims: Dimensions of the tensor, ascending.
        ids: An id for every index of these dimensions; its shape is their sizes.
    """

    dims: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; a dimension in no block carries nothing that may be pruned.

    Args:
        shape: The sizes.
        blocks: At most one for each dimension.
        parameter: A parameter or buffer, so that what is removed of it counts as zero.
    """

    shape: tuple[int, ...]
    blocks: tuple[Block, ...] = ()
    parameter: bool = False

    def block(self, dim: int) -> Block | None:
        """Return the block that holds a dimension."""
        return next((block for block in self.blocks if dim % max(len(self.shape), 1) in block.dims), None)

    def line(self, dim: int) -> Ids | None:
        """Return the ids of a dimension that is a block by itself."""
        block = self.block(dim)
        return block.ids if block is not None and len(block.dims) == 1 else None


@dataclass(frozen=True)
class Literal:
    """A number in a call that counts elements, such as a size in `view`, and so must follow the cut.

    Args:
        node: Index of the call in its program.
        argument: Name of the argument.
        index: Place in the argument where that is a list, else None.
        ids: What is counted: the indices along `axis` of which something is kept.
        axis: See `ids`.
        sign: -1 where the call counts from the end.
        owner: Module whose forward made the call.
    """

    node: int
    argument: str
    index: int | None
    ids: Ids
    axis: int
    sign: int
    owner: str


@dataclass(frozen=True)
class Product:
    """A number of multiplications, or of weights: constant × the lengths of `factors`."""

    constant: float
    factors: tuple[Ids, ...]


@dataclass
class Trace:
    """All that walking over the graphs gathers.

    Args:
        sets: Which elements are pruned together.
        literals: Numbers that must follow.
        rectangles: Ids of joint blocks; what is kept of each must be whole slabs along one axis.
        macs: Multiply-accumulates of each call.
        notes: Why something was left alone.
    """

    sets: UnionFind = field(default_factory=UnionFind)
    literals: list[Literal] = field(default_factory=list)
    rectangles: list[Ids] = field(default_factory=list)
    macs: list[Product] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember a reason once."""
        if text not in self.notes:
            self.notes.append(text)

    def fix(self, value: Value, *dims: int) -> Value:
        """Make dimensions unprunable; the other axes of a joint block stay prunable as whole slabs."""
        blocks = list(value.blocks)
        for dim in dims:
            dim %= max(len(value.shape), 1)
            blocks = [kept for block in blocks for kept in self._without(block, dim)]
        return Value(value.shape, tuple(blocks), value.parameter)

    def fix_all(self, value: Value) -> Value:
        """Make every dimension unprunable."""
        return self.fix(value, *range(len(value.shape)))

    def _without(self, block: Block, dim: int) -> list[Block]:
        if dim not in block.dims:
            return [block]
        if len(block.dims) == 1:
            self.sets.freeze(block.ids)
            return []
        axis = block.dims.index(dim)
        first = np.take(block.ids, 0, axis)
        self.sets.union(np.expand_dims(first, axis), block.ids)
        return [Block(tuple(other for other in block.dims if other != dim), first)]

    def together(self, *lines: Ids | None) -> Ids | None:
        """Join dimensions of equal length element by element; None among them freezes the others."""
        known = [line for line in lines if line is not None]
        if not known:
            return None
        if len(known) < len(lines):
            for line in known:
                self.sets.freeze(line)
            return None
        for line in known[1:]:
            self.sets.union(known[0], line)
        return known[0]


@dataclass(frozen=True)
class Call:
    """One ATen call: its node, and its arguments with values in the place of nodes.

    Args:
        trace: What rules write to.
        node: The call.
        index: Its place in the program.
        arguments: By name, defaults filled in.
        shapes: Shapes of the outputs.
        single: Whether there is one output rather than a list.
    """

    trace: Trace
    node: fx.Node
    index: int
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    single: bool

    def __getitem__(self, name: str) -> Any:
        """Return an argument."""
        return self.arguments[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.shapes[0]

    def values(self) -> list[Value]:
        """List the tensors among the arguments."""
        found: list[Value] = []
        for argument in self.arguments.values():
            parts = argument if isinstance(argument, (list, tuple)) else [argument]
            found += [part for part in parts if isinstance(part, Value)]
        return found

    def counts(self, argument: str, ids: Ids, index: int | None = None, axis: int = 0, sign: int = 1) -> None:
        """Say that a number in the call counts elements."""
        literal = Literal(self.index, argument, index, ids, axis, sign, owner_of(self.node))
        self.trace.literals.append(literal)


def make_call(trace: Trace, node: fx.Node, index: int, values: dict[str, Any]) -> Call:
    """Prepare a call for its rule."""
    arguments = {
        name: fx.node.map_arg(argument, lambda other: values[other.name])
        for name, argument in arguments_of(node).items()
    }
    result: Any = node.meta.get("val")
    single = not isinstance(result, (list, tuple))
    parts = [result] if single else list(result)
    shapes = tuple(tuple(int(size) for size in part.shape) for part in parts if hasattr(part, "shape"))
    return Call(trace, node, index, arguments, shapes, single)
