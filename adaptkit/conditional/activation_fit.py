"""From a network to stages with memories: keys, points, limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from adaptkit.conditional.activation_cache import ActivationCache, Recalled, Remembered, Remembering
from adaptkit.conditional.activation_keys import Array, KeyHead, class_head, pooled, repeat_head
from adaptkit.conditional.activation_repeats import Filled, Recall, Twice, recalled
from adaptkit.conditional.activation_risk import NEVER as NO_RISK_TAKEN
from adaptkit.conditional.activation_risk import RiskTable
from adaptkit.conditional.activation_samples import Change, Seen, Tapped, look_at
from adaptkit.conditional.placement import fastest_points
from adaptkit.conditional.points import chosen_points
from adaptkit.conditional.stage_times import stage_seconds
from adaptkit.conditional.thresholds import NEVER, Answers, Outcome, choose
from adaptkit.errors import DataError
from adaptkit.export.cut import exit_boundaries, split
from adaptkit.export.onnx import final_onnx
from adaptkit.runtime.activation_cache import Neighbours
from adaptkit.technique import Context

_PAIRS = 4000
"""Training samples that say how much a copy differs, at most."""


@dataclass(frozen=True)
class _Known:
    """Known samples behind a point.

    Args:
        keys: Known × dimensions.
        answers: Known × classes.
        table: Risks of distances.
        sureness: Of each sample that decides, minus the risk of its answer.
        right: Whether the answer is.
        seconds: Of a look-up.
    """

    keys: Array
    answers: Array
    table: RiskTable
    sureness: Array
    right: Array
    seconds: float

    def made(self, point: str, key: str, threshold: float) -> Remembered:
        """Give them with the limits on the distance, for a threshold on the sureness."""
        return Remembered(point, key, self.keys, self.answers, self.table.limits(-threshold))


@dataclass(frozen=True)
class _Earlier:
    """Earlier samples behind a point.

    Args:
        settings: Of the cache.
        found: When samples come again.
        min_confidence: Of an answer that is given again at once.
        dimensions: Of a key.
        sureness: Of each sample that decides, minus its score: risks are the same for too many of them.
        right: Whether the answer is.
        seconds: Of a look-up.
    """

    settings: ActivationCache
    found: Recall
    min_confidence: float
    dimensions: int
    sureness: Array
    right: Array
    seconds: float

    def made(self, point: str, key: str, threshold: float) -> Recalled:
        """Say how they answer, for a threshold on the sureness."""
        return recalled(self.settings, self.found, point, key, self.dimensions, -threshold, self.min_confidence)


_Choice: TypeAlias = _Known | _Earlier


def fit_activations(
    settings: ActivationCache, network: nn.Module, original: nn.Module, context: Context, threads: int = 1
) -> Remembering:
    """Put an activation cache into a network.

    Raises:
        DataError: There are fewer training samples than neighbours.
        ModelError: The network cannot be cut.
        TargetError: No limits keep the drop within its bound.
    """
    fitting = _Fitting(settings, network, original, context)
    proto = final_onnx(Tapped(network, fitting.taps), context.example_inputs)
    whole = _Whole(settings, proto, len(fitting.points), context.example_inputs[0][:1].numpy(), threads)
    judged = fitting.judged()
    choices = fitting.choices(judged)
    kept = whole.worth_it(choices, judged, context.seed)
    while True:
        stages = whole.stages(kept)
        lookups = [choices[i].seconds for i in kept]
        seconds = np.cumsum(stage_seconds(stages, whole.x, threads) + np.array([*lookups, 0.0]))
        outcome = choose(
            judged.answers([choices[i] for i in kept], seconds),
            settings.max_accuracy_drop,
            settings.confidence,
            context.seed,
        )
        taken = tuple(i for i, limit in zip(kept, outcome.thresholds, strict=True) if limit != NEVER)
        if taken == kept:
            break
        kept = taken
    memories = [
        choices[i].made(fitting.taps[i][0], whole.outputs[i], threshold)
        for i, threshold in zip(kept, outcome.thresholds, strict=True)
    ]
    _note(settings, context, fitting.points, memories, outcome, float(seconds[-1]))
    return Remembering(stages, memories, settings.neighbours, proto.graph.output[0].name, outcome, network.eval())


def _note(
    settings: ActivationCache,
    context: Context,
    points: Sequence[str],
    memories: Sequence[Remembered | Recalled],
    outcome: Outcome,
    to_the_end: float,
) -> None:
    standing = {memory.point for memory in memories}
    if dropped := [point for point in points if point not in standing]:
        context.notes.append(f"dropped, since they cost more time than they save: caches behind {', '.join(dropped)}")
    if settings.capacity and not any(isinstance(memory, Recalled) for memory in memories):
        context.notes.append("nothing is kept at run time: nowhere would that save time")
    shares = ", ".join(
        f"{100 * share:.1f} % behind {memory.point}{' (seen before)' if isinstance(memory, Recalled) else ''}"
        for share, memory in zip(outcome.shares, memories, strict=False)
    )
    half = ", half of which came before," if settings.capacity else ""
    context.notes.append(
        f"{shares} and {100 * outcome.shares[-1]:.1f} % at the end; on {outcome.samples} validation samples{half} "
        f"{outcome.lost} answers were lost and {outcome.gained} gained: a drop of at most {100 * outcome.bound:.2f} "
        f"points with {100 * settings.confidence:g} % confidence. Stages and look-ups take "
        f"{1e6 * outcome.seconds:.0f} µs a sample, {1e6 * to_the_end:.0f} µs to the end"
    )


@dataclass(frozen=True)
class _Judged:
    """Validation samples as the stages see them.

    Args:
        keys: At each tap.
        seen: Their answers and labels.
        first: Those that set risks; the others decide.
        twice: How they came before; None where nothing is kept at run time.
        before: Keys of what is kept of that, at each tap.
    """

    keys: list[Array]
    seen: Seen
    first: Array
    twice: Twice | None
    before: list[Array]

    def answers(self, choices: Sequence[_Choice], seconds: Array) -> Answers:
        """Say what memories and the end answer; `seconds` are until each of them."""
        decide = ~self.first
        end = (self.seen.answers.argmax(1) == self.seen.y)[decide]
        return Answers(
            np.column_stack([choice.sureness for choice in choices]),
            np.column_stack([*(choice.right for choice in choices), end]),
            self.seen.original[decide],
            seconds,
        )


class _Fitting:
    """Points, what is known there, and heads that make keys: for known samples first, for earlier ones behind them."""

    def __init__(self, settings: ActivationCache, network: nn.Module, original: nn.Module, context: Context) -> None:
        assert context.train is not None
        self._settings, self._network, self._original, self._context = settings, network, original, context
        self._rng = np.random.default_rng([context.seed, 2])
        found = chosen_points(network, context.example_inputs, settings.points, first=bool(settings.capacity))
        self.points = tuple(point.path for point in found)
        taps = [(point, lambda x: pooled(x, 1)) for point in self.points]
        [known] = look_at(network, network, taps, context.train, (_as_it_is,), settings.entries)
        if len(known.y) < settings.neighbours:
            raise DataError(
                f"{settings.name} needs at least {settings.neighbours} training samples; got {len(known.y)}"
            )
        heads = [class_head(each, known.answers.argmax(1), settings.dimensions) for each in known.values]
        self._answers = known.answers
        self._known = [_keys(head, each) for head, each in zip(heads, known.values, strict=True)]
        self.taps: list[tuple[str, KeyHead]] = [*zip(self.points, heads, strict=True), *self._repeat_taps()]

    def _repeat_taps(self) -> Iterator[tuple[str, KeyHead]]:
        if not self._settings.capacity:
            return
        assert self._context.train is not None
        cells = self._settings.cells
        taps = [(point, lambda x: pooled(x, cells)) for point in self.points]
        most = min(_PAIRS, self._settings.entries)
        pair = look_at(self._network, self._network, taps, self._context.train, (self._changed,) * 2, most)
        for point, one, other in zip(self.points, *(seen.values for seen in pair), strict=True):
            yield point, repeat_head(cells, one, other, self._settings.dimensions)

    def _changed(self, x: Tensor) -> Tensor:
        return self._settings.perturbations.apply(x, self._rng)

    def judged(self) -> _Judged:
        """Run the validation samples, where things are kept at run time twice, changed anew each time."""
        assert self._context.validation is not None
        changes: list[Change] = [self._changed] * 2 if self._settings.capacity else [_as_it_is]
        taps = self.taps
        seen, *before = look_at(self._network, self._original, taps, self._context.validation, changes)
        order = np.random.default_rng([self._context.seed, 1]).permutation(len(seen.y))
        first = np.isin(np.arange(len(order)), order[: len(order) // 2])
        keys = [each.numpy() for each in seen.values]
        if not before:
            return _Judged(keys, seen, first, None, [])
        kept = self._rng.random(len(order)) < 0.5
        [earlier] = before
        twice = Twice(kept, earlier.answers[kept], seen.answers)
        return _Judged(keys, seen, first, twice, [each.numpy()[kept] for each in earlier.values])

    def choices(self, judged: _Judged) -> list[_Choice]:
        """Set the risks of every memory that could be, one for each tap."""
        count = len(self.points)
        known = [self._of_known(keys, mine, judged) for keys, mine in zip(self._known, judged.keys, strict=False)]
        if judged.twice is None:
            return list(known)
        sure = judged.twice.least_confidence(judged.first, self._settings.target_precision)
        earlier = [
            self._of_earlier(before, again, judged, judged.twice, sure)
            for before, again in zip(judged.before[count:], judged.keys[count:], strict=True)
        ]
        return [*known, *earlier]

    def _of_known(self, known: Array, keys: Array, judged: _Judged) -> _Known:
        classes, first, y = self._answers.shape[1], judged.first, judged.seen.y
        finder = Neighbours(known, self._answers, np.zeros(classes), self._settings.neighbours)
        chosen, agree, distances = finder.nearest(keys)
        labels = self._answers.argmax(1)[chosen[:, 0]]
        near = first & agree
        table = RiskTable(distances[near], labels[near], labels[near] != y[near], classes)
        risks = np.where(agree, table.risks(distances, labels), NO_RISK_TAKEN)
        risks[risks > 1 - self._settings.target_precision] = NO_RISK_TAKEN
        right = finder.look_up(keys)[0].argmax(1) == y
        seconds = _lookup_seconds(finder, keys[:1])
        return _Known(known, self._answers, table, -risks[~first], right[~first], seconds)

    def _of_earlier(self, before: Array, again: Array, judged: _Judged, twice: Twice, sure: float) -> _Earlier:
        settings, first = self._settings, judged.first
        found = Recall.of(before, again, twice, sure)
        most = found.limit(first, judged.seen.answers.argmax(1), settings.target_precision)
        sureness = -np.where(found.scores <= most, found.scores, NEVER)
        right = found.answers.argmax(1) == judged.seen.y
        size = again.shape[1]
        timed = Filled(recalled(settings, found, "", "", size, 0.5, sure).entries, self._context.seed)
        seconds = _lookup_seconds(timed, again[:1])
        return _Earlier(settings, found, sure, size, sureness[~first], right[~first], seconds)


@dataclass(frozen=True)
class _Whole:
    """A network with all keys, as a file.

    Args:
        settings: Of the cache.
        proto: Gives the answer, and then the keys of each tap.
        points: How many there are; taps go through them, once or twice.
        x: One sample.
        threads: Within an operator.
    """

    settings: ActivationCache
    proto: onnx.ModelProto
    points: int
    x: Array
    threads: int

    @property
    def outputs(self) -> list[str]:
        """Names of the keys."""
        return [value.name for value in self.proto.graph.output[1:]]

    def stages(self, kept: Sequence[int], keys: bool = True) -> list[onnx.ModelProto]:
        """Cut behind the points of some taps."""
        names = [self.outputs[i] for i in kept]
        final = self.proto.graph.output[0].name
        boundaries = exit_boundaries(self.proto.graph, final, names)
        return split(self.proto, boundaries, [*([name] if keys else [] for name in names), [final]])

    def worth_it(self, choices: Sequence[_Choice], judged: _Judged, seed: int) -> tuple[int, ...]:
        """Choose the taps with which the mean time is least: segments and what is done at points are timed apart."""
        taps = np.arange(len(choices))
        rows = taps.reshape(-1, self.points).tolist()
        segments = stage_seconds(self.stages(rows[0], keys=False), self.x, self.threads)
        full = [stage_seconds(self.stages(row), self.x, self.threads) for row in rows]
        costs = np.concatenate([np.maximum(each - segments, 0)[:-1] for each in full])
        costs += [choice.seconds for choice in choices]
        [whole] = stage_seconds(self.stages((), keys=False), self.x, self.threads)
        return fastest_points(
            lambda kept, seconds: judged.answers([choices[i] for i in kept], seconds),
            segments,
            float(whole),
            costs,
            self.settings.max_accuracy_drop,
            seed,
            _sets([isinstance(choice, _Earlier) for choice in choices], self.points),
        )


def _sets(repeats: Sequence[bool], points: int) -> Iterator[tuple[int, ...]]:
    """List which choices may stand together: one behind a point, and earlier samples behind one point only."""
    behind = [[None, *range(point, len(repeats), points)] for point in range(points)]
    for drawn in itertools.product(*behind):
        kept = tuple(i for i in drawn if i is not None)
        if kept and sum(repeats[i] for i in kept) <= 1:
            yield kept


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _keys(head: KeyHead, activations: Tensor) -> Array:
    with torch.no_grad():
        keys: Array = head.keys(activations).numpy()
    return keys


def _lookup_seconds(finder: Neighbours | Filled, key: Array, repeats: int = 50) -> float:
    taken = []
    for _ in range(repeats):
        started = perf_counter()
        finder.look_up(key)
        taken.append(perf_counter() - started)
    return median(taken)
