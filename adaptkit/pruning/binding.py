"""Finding the attributes of a user's own modules that feed the numbers in their calls, by trying."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from adaptkit.pruning.capture import owner_of
from adaptkit.pruning.cut import Attribute, has_rule, is_known
from adaptkit.pruning.groups import Units, build_groups
from adaptkit.pruning.layers import output_dims
from adaptkit.pruning.rehearse import Failure, Walked, rehearse
from adaptkit.pruning.union_find import Ids
from adaptkit.pruning.values import Literal, Trace, Value

_MOST_TRIES = 24
Place = tuple[int, int]
"""A literal: number of the program, place in its list."""
Choice = tuple[str, str, int | None]
"""An attribute as seen from the module that makes the call: path from there, name, index."""
Assignment = tuple[Choice | None, ...]
"""For each literal of a module the attribute that feeds it, or None where it follows by itself."""


@dataclass
class Family:
    """The literals of all modules of one class that make the same calls: they share one answer.

    Args:
        name: The class.
        instances: Literals of each module, in the order of its calls, by module path.
        bound: Ways to bind the literals that were not tried yet.
        mixed: The same, for ways that leave some literal without an attribute though one would fit.
        clashing: An assignment that failed only because one attribute would need two values.
        tied: Whether the numbers that share an attribute have been made to agree.
        led: Whether numbers without an attribute have been tied to the inputs of the modules.
    """

    name: str
    instances: dict[str, list[Place]]
    bound: Iterator[Assignment]
    mixed: Iterator[Assignment]
    current: Assignment = ()
    clashing: Assignment | None = None
    tied: bool = False
    led: bool = False


@dataclass
class Search:
    """Tries until rehearsals that remove one unit of every group, or of some, go well; what cannot follow is frozen.

    Args:
        model: Left as it was.
        walked: The captured programs.
        tensors: Ids of every tensor.
        trace: Where ids are frozen and notes kept.
    """

    model: nn.Module
    walked: Sequence[Walked]
    tensors: dict[str, Value]
    trace: Trace
    bindings: dict[Place, Attribute] = field(default_factory=dict)
    families: list[Family] = field(default_factory=list)

    def run(self) -> Units:
        """Return the groups that can be cut, once `bindings` are found."""
        outputs = output_dims(self.model)
        units = build_groups(self.trace.sets, self.tensors, outputs)
        self.families = self._families(units)
        while True:
            if not units.groups:
                return units
            groups, failure = self._first_failure(units)
            if failure is None:
                return units
            family = self._blamed(failure.path)
            if family is None:
                self._freeze_culprit(units, failure, groups)
            elif not self._next(family, failure):
                self._give_up(family, units)
            units = build_groups(self.trace.sets, self.tensors, outputs)

    def _first_failure(self, units: Units) -> tuple[Sequence[int], Failure | None]:
        """Remove one unit of every group, then of those whose number has a certain bit.

        A forward that divides channels by heads follows while both are cut alike: each two groups must be tried apart,
        for which as many cuts are enough as their numbers have bits. Without attributes there is nothing to divide.
        """
        everything = range(len(units.groups))
        cuts: list[Sequence[int]] = [everything]
        if self.bindings:
            bits = range((len(units.groups) - 1).bit_length())
            cuts += [[number for number in everything if number >> bit & 1] for bit in bits]
        for cut in cuts:
            failure = self._rehearse(units, cut)
            if failure is not None:
                return cut, failure
        return everything, None

    def _rehearse(self, units: Units, groups: Sequence[int]) -> Failure | None:
        removed = units.removed({number: [0] for number in groups})
        return rehearse(self.model, self.walked, self.tensors, self.bindings, lambda ids: units.kept(removed, ids))

    def _literal(self, place: Place) -> Literal:
        return self.walked[place[0]].literals[place[1]]

    def _families(self, units: Units) -> list[Family]:
        """Collect the literals that change with some group and that no rule for a known module type looks after."""
        owned: dict[tuple[int, str], list[Place]] = defaultdict(list)
        for program, walked in enumerate(self.walked):
            for number, literal in enumerate(walked.literals):
                known = is_known(self.model.get_submodule(literal.owner), literal.argument)
                if not known and (units.of_id[literal.ids] >= 0).any():
                    owned[program, literal.owner].append((program, number))
        alike: dict[Any, dict[str, list[Place]]] = defaultdict(dict)
        for (program, path), places in owned.items():
            literals = [self._literal(place) for place in places]
            key = (type(self.model.get_submodule(path)), program, tuple((x.argument, x.index) for x in literals))
            alike[key][path] = places
        return [
            Family(key[0].__name__, found, self._assignments(found, True), self._assignments(found, False))
            for key, found in alike.items()
        ]

    def _assignments(self, instances: dict[str, list[Place]], complete: bool) -> Iterator[Assignment]:
        """List the ways to bind all literals that can be bound, or those that leave some of them out."""
        positions = len(next(iter(instances.values())))
        choices: list[list[Choice | None]] = []
        for position in range(positions):
            names = [
                set(_attributes(self.model.get_submodule(path), self._literal(places[position])))
                for path, places in instances.items()
            ]
            choices.append([*sorted(set.intersection(*names), key=str), None])
        full = [choice[:-1] or choice for choice in choices]
        ways = itertools.product(*(full if complete else choices))
        fitting = (way for way in ways if any(way) and complete == all(w in f for w, f in zip(way, full, strict=True)))
        return itertools.islice(fitting, _MOST_TRIES)

    def _blamed(self, path: str) -> Family | None:
        """Find who may be at fault: the failing module, one around it, or else the first with something to try."""
        while True:
            for family in self.families:
                if path in family.instances:
                    return family
            if not path:
                return next(iter(self.families), None)
            path = path.rpartition(".")[0]

    def _next(self, family: Family, failure: Failure) -> bool:
        if failure.clash is not None and family.clashing is None:
            family.clashing = family.current
        assignment = next(family.bound, None)
        if assignment is None and not family.led:
            family.led = True
            if self._tie_to_inputs(family):
                family.bound = self._assignments(family.instances, True)
                assignment = next(family.bound, None)
                if assignment is None:
                    return True
        if assignment is None and family.clashing is not None and not family.tied:
            family.tied = True
            assignment = family.clashing
            self._tie(family, assignment)
        assignment = assignment or next(family.mixed, None)
        if assignment is None:
            return False
        self._bind(family, assignment)
        return True

    def _bind(self, family: Family, assignment: Sequence[Choice | None]) -> None:
        family.current = tuple(assignment)
        for path, places in family.instances.items():
            for place, choice in zip(places, assignment, strict=True):
                self.bindings.pop(place, None)
                if choice is not None:
                    inside, name, index = choice
                    self.bindings[place] = Attribute(f"{path}.{inside}".strip("."), name, index)

    def _tie(self, family: Family, assignment: Sequence[Any]) -> None:
        """Prune as many elements of each of the numbers that share an attribute, by pairing them up."""
        for places in family.instances.values():
            by_name: dict[Any, list[Literal]] = defaultdict(list)
            for place, name in zip(places, assignment, strict=True):
                by_name[name].append(self._literal(place))
            for literals in (shared for name, shared in by_name.items() if name is not None):
                for other in literals[1:]:
                    if other.ids.shape == literals[0].ids.shape:
                        self.trace.sets.union(literals[0].ids, other.ids)

    def _tie_to_inputs(self, family: Family) -> bool:
        """Prune numbers together with an input of equal size, from whose shape a forward may have read them.

        Attention that computes its head size as channels / heads can lose a head where the channels lose as much.
        """
        roots = self.trace.sets.roots()
        pairs = []
        for path, places in family.instances.items():
            lines = list(self._entering(places[0][0], path))
            for literal in (self._literal(place) for place in places):
                if literal.ids.ndim == 1:
                    pairs += [(line, literal.ids) for line in lines if line.shape == literal.ids.shape][:1]
        apart = [(a, b) for a, b in pairs if (roots[a] != roots[b]).any()]
        for a, b in apart:
            self.trace.sets.union(a, b)
        return bool(apart)

    def _entering(self, program: int, path: str) -> Iterator[Ids]:
        """List the dimensions of what a module is given."""
        walked = self.walked[program]
        place = {node.name: index for index, node in enumerate(walked.program.nodes)}
        for node in walked.program.nodes:
            if not _within(owner_of(node), path) or node.op != "call_function":
                continue
            for source in node.all_input_nodes:
                value = walked.values[place[source.name]]
                if isinstance(value, Value) and not value.parameter and not _within(owner_of(source), path):
                    lines = (value.line(dim) for dim in range(len(value.shape)))
                    yield from (line for line in lines if line is not None)

    def _give_up(self, family: Family, units: Units) -> None:
        """Freeze what cannot follow, literal by literal."""
        self._bind(family, [None] * len(family.current or next(iter(family.instances.values()))))
        self.families.remove(family)
        for position in range(len(next(iter(family.instances.values())))):
            literals = [self._literal(places[position]) for places in family.instances.values()]
            touched = sorted({group for literal in literals for group in units.group_of(literal.ids)})
            if touched and self._rehearse(units, touched) is not None:
                for literal in literals:
                    self.trace.sets.freeze(literal.ids)
                labels = ", ".join(units.groups[group].label for group in touched[:3])
                more = " …" if len(touched) > 3 else ""
                self.trace.note(f"{family.name} does not follow a change of {labels}{more}: left alone")

    def _freeze_culprit(self, units: Units, failure: Failure, groups: Sequence[int]) -> None:
        """Find the groups at fault among those that were cut by halving, and freeze them."""
        suspects = list(groups)
        while len(suspects) > 1:
            half = len(suspects) // 2
            halves = (suspects[:half], suspects[half:])
            guilty = next((part for part in halves if self._rehearse(units, part) is not None), None)
            if guilty is None:
                break
            suspects = guilty
        for number in suspects:
            group = units.groups[number]
            members = (units.of_id >= units.first[number]) & (units.of_id < units.first[number] + group.size)
            self.trace.sets.freeze(np.flatnonzero(members))
            self.trace.note(f"{group.label}: left alone, since {failure.path or 'the model'} fails: {failure.reason}")


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}.")


def _attributes(module: nn.Module, literal: Literal) -> list[Choice]:
    """List the attributes that hold the number of a literal: a module's own, or else those of the modules in it."""
    number = literal.ids.shape[literal.axis]
    own = list(_holding(module, "", number))
    if own:
        return own
    return [
        choice
        for path, child in module.named_children()
        if not has_rule(child)
        for choice in _holding(child, path, number)
    ]


def _holding(module: nn.Module, path: str, number: int) -> Iterator[Choice]:
    for name, held in vars(module).items():
        if type(held) is int and held == number:
            yield path, name, None
        elif type(held) in (list, tuple):
            yield from ((path, name, place) for place, item in enumerate(held) if type(item) is int and item == number)
