"""Elementwise operations and products: tensors that share dimensions, named by letters (integers) as in einsum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.pruning.values import Block, Product, Trace, Value


@dataclass
class Operand:
    """A tensor whose dimensions are letters.

    Args:
        sizes: Size of every letter that the tensor really has (not a broadcast size of 1).
        blocks: Ids; `dims` are letters.
        parameter: As of the value.
    """

    sizes: dict[int, int]
    blocks: list[Block]
    parameter: bool

    def letters_with(self, letter: int) -> frozenset[int]:
        """Return all letters of the block that holds a letter."""
        return next((frozenset(block.dims) for block in self.blocks if letter in block.dims), frozenset())

    def fix(self, trace: Trace, letter: int) -> None:
        """Make a letter unprunable."""
        value = Value((1,) * (max(self.sizes) + 1), tuple(self.blocks))
        self.blocks = list(trace.fix(value, letter).blocks)


def operand(value: Value, letters: Sequence[int]) -> Operand:
    """Rename the dimensions of a value to letters."""
    sizes = {letter: size for letter, size in zip(letters, value.shape, strict=True) if size > 1}
    blocks = [_rename(block, [letters[dim] for dim in block.dims]) for block in value.blocks]
    return Operand(sizes, blocks, value.parameter)


def merge(trace: Trace, operands: Sequence[Operand]) -> list[Block]:
    """Join the ids of the operands letter by letter; return the blocks of all letters.

    A letter that one operand has without ids becomes unprunable. Where blocks of different extent meet (heads of one
    with heads × head size of the other), the larger shrinks to the common letters.
    """
    letters = sorted({letter for item in operands for letter in item.sizes})
    changed = True
    while changed:
        changed = any(_agree(trace, operands, letter) for letter in letters)
    merged: dict[tuple[int, ...], Block] = {}
    for item in operands:
        for block in item.blocks:
            first = merged.setdefault(block.dims, block)
            trace.sets.union(first.ids, block.ids)
    return list(merged.values())


def contract(trace: Trace, operands: Sequence[Operand], out: Sequence[int]) -> tuple[Block, ...]:
    """Multiply and sum over all letters that are not in `out`; return the blocks of the result, by its dimensions.

    Elements of a summed letter may be pruned where one operand is a parameter: its removed slices count as zero. With
    two activations (queries and keys) the sum must stay whole.
    """
    summed = {letter for item in operands for letter in item.sizes} - set(out)
    for letter in summed:
        owners = [item for item in operands if letter in item.sizes]
        alone = all(item.letters_with(letter) == {letter} for item in owners)
        if not (alone and any(item.parameter for item in owners)):
            for item in owners:
                item.fix(trace, letter)
    blocks = merge(trace, operands)
    trace.macs.append(_cost(operands, blocks))
    place = {letter: dim for dim, letter in enumerate(out)}
    return tuple(_rename(block, [place[letter] for letter in block.dims]) for block in blocks if block.dims[0] in place)


def elementwise(trace: Trace, values: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """Combine tensors with broadcasting."""
    rank = len(shape)
    operands = [operand(value, range(rank - len(value.shape), rank)) for value in values]
    return Value(shape, tuple(merge(trace, operands)))


def _agree(trace: Trace, operands: Sequence[Operand], letter: int) -> bool:
    owners = [item for item in operands if letter in item.sizes]
    extents = [item.letters_with(letter) for item in owners]
    common = frozenset.intersection(*extents) if extents else frozenset()
    for item, extent in zip(owners, extents, strict=True):
        for other in extent - common:
            item.fix(trace, other)
    return any(extent != common for extent in extents)


def _cost(operands: Sequence[Operand], blocks: Sequence[Block]) -> Product:
    sizes = {letter: size for item in operands for letter, size in item.sizes.items()}
    labelled = {letter for block in blocks for letter in block.dims}
    constant = float(np.prod([float(size) for letter, size in sizes.items() if letter not in labelled]))
    return Product(constant, tuple(block.ids.ravel() for block in blocks))


def _rename(block: Block, names: Sequence[int]) -> Block:
    order = sorted(range(len(names)), key=lambda place: names[place])
    return Block(tuple(names[place] for place in order), block.ids.transpose(order))
