"""Groups of interchangeable units, and how many elements a selection of units leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptkit.pruning.union_find import Ids, UnionFind
from adaptkit.pruning.values import Product, Value

Selection = Mapping[int, Iterable[int]]


@dataclass(frozen=True)
class Slice:
    """What a group holds of one parameter or buffer.

    Args:
        name: Its name in the state dict.
        dim: The dimension that is cut.
        indices: units × elements: the indices of each unit.
        output: The dimension of the tensor that holds what its layer puts out.
    """

    name: str
    dim: int
    indices: Ids
    output: int = 0

    @property
    def makes(self) -> bool:
        """Whether outputs of the layer are cut, rather than inputs."""
        return self.dim == self.output


@dataclass(frozen=True)
class Group:
    """Units of which any may be removed: each is a set of slices that only make sense together.

    Args:
        label: The first layer that makes these channels, such as "layer1.0.conv1".
        slices: All that is cut with them.
        size: Number of units.
    """

    label: str
    slices: tuple[Slice, ...]
    size: int

    @property
    def width(self) -> int:
        """Channels that one unit holds of the first layer: 1, or the head size where units are heads."""
        return int(self.slices[0].indices.shape[1])

    def kind(self, kinds: Mapping[str, str]) -> tuple[tuple[str, str, int], ...]:
        """Say what is cut, whatever its sizes: groups of the same kind are isomorphic sub-structures.

        Args:
            kinds: Class of the module at each path.
        """
        split = [(s.name.rpartition("."), s.dim) for s in self.slices]
        return tuple(sorted((kinds[path], name, dim) for (path, _, name), dim in split))

    def producers(self) -> list[str]:
        """Name the layers whose outputs go; all modules that lose something where there is none."""
        makers = [s for s in self.slices if s.makes and "weight" in s.name.rpartition(".")[2]]
        return [s.name.rpartition(".")[0] for s in makers or self.slices]


@dataclass(frozen=True)
class Units:
    """Which unit every id belongs to.

    Args:
        groups: The groups, in the order of the model.
        of_id: Number of the unit of each id, counted over all groups; -1 where it is not prunable.
        first: Number of the first unit of each group.
    """

    groups: tuple[Group, ...]
    of_id: Ids
    first: tuple[int, ...]

    def removed(self, selection: Selection) -> NDArray[np.bool_]:
        """Say of every unit whether it goes; one more entry, never removed, stands for -1."""
        flags = np.zeros(sum(group.size for group in self.groups) + 1, dtype=bool)
        for number, units in selection.items():
            flags[self.first[number] + np.fromiter(units, np.int64)] = True
        return flags

    def kept(self, removed: NDArray[np.bool_], ids: Ids) -> NDArray[np.bool_]:
        """Say of every id whether it stays."""
        return np.asarray(~removed[self.of_id[ids]])

    def group_of(self, ids: Ids) -> set[int]:
        """Name the groups that these ids belong to."""
        units = np.unique(self.of_id[ids])
        return {int(np.searchsorted(self.first, unit, side="right")) - 1 for unit in units if unit >= 0}


def build_groups(sets: UnionFind, tensors: Mapping[str, Value], outputs: Mapping[str, int]) -> Units:
    """Gather the sets that may be pruned into groups of those with the same slices.

    Args:
        sets: Which elements are pruned together.
        tensors: Ids of every tensor.
        outputs: The dimension that holds a layer's outputs, by name of its weight, where it is not 0.
    """
    roots, frozen = sets.roots(), sets.frozen()
    lines = _lines(tensors)
    table = _places(roots, frozen, lines)
    families: dict[bytes, list[Ids]] = defaultdict(list)
    starts = np.flatnonzero(np.diff(table[:, 0], prepend=-1))
    for rows in np.split(table, starts[1:]) if len(table) else []:
        families[rows[:, 1].tobytes()].append(rows)
    groups: list[Group] = []
    unit_of_root = np.full(len(roots), -1, dtype=np.int64)
    first: list[int] = []
    number = 0
    for family in families.values():
        if len(family) < 2:
            continue
        first.append(number)
        groups.append(_group(np.stack(family), lines, outputs))
        unit_of_root[[rows[0, 0] for rows in family]] = np.arange(number, number + len(family))
        number += len(family)
    return Units(tuple(groups), unit_of_root[roots], tuple(first))


class Lengths:
    """Products whose factors shrink with the groups: multiplications of a call, elements of a parameter.

    Each factor has length base + Σ per unit[g] · kept[g], and a product is constant · Π lengths.

    Args:
        units: The groups.
        products: What is counted.
    """

    def __init__(self, units: Units, products: Iterable[Product]) -> None:
        listed = list(products)
        sizes = np.array([group.size for group in units.groups], dtype=float)
        self._constant = np.array([product.constant for product in listed])
        most = max((len(product.factors) for product in listed), default=0)
        self._base = np.ones((len(listed), most))
        self._slope = np.zeros((len(listed), most, len(sizes)))
        for row, product in enumerate(listed):
            for place, ids in enumerate(product.factors):
                owned = units.of_id[ids]
                self._base[row, place] = (owned < 0).sum()
                owners = np.searchsorted(units.first, owned[owned >= 0], side="right") - 1
                self._slope[row, place] = np.bincount(owners, minlength=len(sizes)) / sizes

    def total(self, kept: NDArray[np.float64]) -> float:
        """Sum the products for these numbers of kept units of every group."""
        return float((self._constant * (self._base + self._slope @ kept).prod(axis=1)).sum())


def weight_products(tensors: Mapping[str, Value], names: Iterable[str]) -> list[Product]:
    """Return the number of elements of each tensor as a product."""
    products = []
    for name in names:
        value = tensors[name]
        fixed = [size for dim, size in enumerate(value.shape) if value.line(dim) is None]
        products.append(Product(float(np.prod(fixed or [1])), tuple(block.ids for block in value.blocks)))
    return products


def _lines(tensors: Mapping[str, Value]) -> list[tuple[str, int, Ids]]:
    """List the dimensions of all tensors with their ids; tied tensors count once."""
    once = {id(value): (name, value) for name, value in reversed(list(tensors.items()))}
    listed = [pair for pair in tensors.items() if once[id(pair[1])][0] == pair[0]]
    return [(name, block.dims[0], block.ids) for name, value in listed for block in value.blocks]


def _places(roots: Ids, frozen: NDArray[np.bool_], lines: list[tuple[str, int, Ids]]) -> Ids:
    """List (set, number of the line, index in it) of all that may be pruned, sorted."""
    rows = [np.zeros((0, 3), dtype=np.int64)]
    for number, (_, _, ids) in enumerate(lines):
        places = np.flatnonzero(~frozen[ids])
        rows.append(np.column_stack([roots[ids[places]], np.full(len(places), number), places]))
    table = np.concatenate(rows)
    return np.asarray(table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))])


def _group(family: Ids, lines: list[tuple[str, int, Ids]], outputs: Mapping[str, int]) -> Group:
    """Make a group of units × places × (set, line, index)."""
    numbers = family[0, :, 1]
    slices = [
        Slice(lines[number][0], lines[number][1], family[:, numbers == number, 2], outputs.get(lines[number][0], 0))
        for number in dict.fromkeys(numbers.tolist())
    ]
    makers = [s for s in slices if s.makes and s.name.endswith("weight")]
    first = (makers or slices)[0]
    # of a recurrent layer the columns that take the state: its rows hold a unit once for every gate
    of_same = [s for s in slices if s.name.rpartition(".")[0] == first.name.rpartition(".")[0]]
    first = first if makers else min(of_same, key=lambda s: s.indices.shape[1])
    ordered = (first, *(s for s in slices if s is not first))
    return Group(first.name.rpartition(".")[0] or first.name, ordered, len(family))
