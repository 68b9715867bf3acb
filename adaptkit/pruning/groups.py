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
    """

    name: str
    dim: int
    indices: Ids


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

    def producers(self) -> list[str]:
        """Name the layers whose outputs go: the modules that hold a weight whose dimension 0 is cut."""
        return [s.name.rpartition(".")[0] for s in self.slices if s.dim == 0 and s.name.endswith("weight")]


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


def build_groups(sets: UnionFind, tensors: Mapping[str, Value]) -> Units:
    """Gather the sets that may be pruned into groups of those with the same slices."""
    roots, frozen = sets.roots(), sets.frozen()
    places = _places(roots, frozen, tensors)
    names = list(tensors)
    families: dict[tuple[tuple[int, int, int], ...], list[int]] = defaultdict(list)
    for root, slices in places.items():
        families[tuple((names.index(n), d, len(i)) for (n, d), i in slices.items())].append(root)
    groups: list[Group] = []
    unit_of_root = np.full(len(roots), -1, dtype=np.int64)
    first: list[int] = []
    number = 0
    for family in families.values():
        if len(family) < 2:
            continue
        first.append(number)
        groups.append(_group(family, places))
        unit_of_root[family] = np.arange(number, number + len(family))
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


def _places(
    roots: Ids, frozen: NDArray[np.bool_], tensors: Mapping[str, Value]
) -> dict[int, dict[tuple[str, int], list[int]]]:
    found: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    seen: set[int] = set()
    for name, value in tensors.items():
        if id(value) in seen:
            continue
        seen.add(id(value))
        for block in value.blocks:
            for place, element in enumerate(block.ids.tolist()):
                if not frozen[element]:
                    found[int(roots[element])].setdefault((name, block.dims[0]), []).append(place)
    return found


def _group(family: list[int], places: dict[int, dict[tuple[str, int], list[int]]]) -> Group:
    keys = list(places[family[0]])
    slices = tuple(Slice(name, dim, np.array([places[root][name, dim] for root in family])) for name, dim in keys)
    makers = [s for s in slices if s.dim == 0 and s.name.endswith("weight")]
    first = (makers or list(slices))[0]
    ordered = (first, *(s for s in slices if s is not first))
    return Group(first.name.rpartition(".")[0] or first.name, ordered, len(family))
