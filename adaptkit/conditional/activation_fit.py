"""From a network to stages with memories: keys, points, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from adaptkit.conditional.activation_cache import ActivationCache, Remembered, Remembering
from adaptkit.conditional.activation_risk import NEVER as NO_RISK_TAKEN
from adaptkit.conditional.activation_risk import RiskTable
from adaptkit.conditional.exit_network import ExitNetwork, tapped
from adaptkit.conditional.keys import discriminant
from adaptkit.conditional.placement import fastest_points
from adaptkit.conditional.points import chosen_points
from adaptkit.conditional.stage_times import stage_seconds
from adaptkit.conditional.thresholds import NEVER, Answers, Array, choose
from adaptkit.errors import DataError
from adaptkit.export.cut import exit_boundaries, split
from adaptkit.export.onnx import final_onnx
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.runtime.activation_cache import Neighbours
from adaptkit.technique import Context

_TINY = 1e-12


class KeyHead(nn.Module):
    """Average an activation over its places, project it, and scale it to length 1.

    Args:
        mean: Of averaged activations, features.
        projection: Features × dimensions.
    """

    offset: Tensor
    projection: Tensor

    def __init__(self, mean: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", mean @ projection)
        self.register_buffer("projection", projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map activations to N × dimensions."""
        keys = averaged(x) @ self.projection - self.offset
        # F.normalize reads the batch size off the model's input, and the graph could not be cut.
        unit: Tensor = keys / keys.square().sum(1, keepdim=True).sqrt().clamp_min(_TINY)
        return unit


def averaged(x: Tensor) -> Tensor:
    """Average maps over places, and sequences over tokens; vectors stay.

    Example:
        >>> averaged(torch.zeros(2, 16, 8, 8)).shape, averaged(torch.zeros(2, 50, 32)).shape
        (torch.Size([2, 16]), torch.Size([2, 32]))
    """
    return x.mean((2, 3)) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x


@dataclass(frozen=True)
class _Samples:
    """What a network makes of some samples.

    Args:
        activations: Averaged, N × features at each point.
        answers: N × classes.
        y: Labels.
        original: Whether the original model is right.
    """

    activations: list[Tensor]
    answers: Array
    y: Array
    original: Array


def fit_activations(
    settings: ActivationCache, network: nn.Module, original: nn.Module, context: Context, threads: int = 1
) -> Remembering:
    """Put an activation cache into a network.

    Raises:
        DataError: There are fewer training samples than neighbours.
        ModelError: The network cannot be cut.
        TargetError: No limits keep the drop within its bound.
    """
    assert context.train is not None
    assert context.validation is not None
    points = tuple(point.path for point in chosen_points(network, context.example_inputs, settings.points))
    known = _run(network, network, points, context.train, settings.entries)
    if len(known.y) < settings.neighbours:
        raise DataError(f"{settings.name} needs at least {settings.neighbours} training samples; got {len(known.y)}")
    held = _run(network, original, points, context.validation)
    heads = [_head(each, known.answers.argmax(1), settings.dimensions) for each in known.activations]
    proto = final_onnx(ExitNetwork(network, dict(zip(points, heads, strict=True))), context.example_inputs)
    whole = _Whole(settings, proto, points, context.example_inputs[0][:1].numpy(), threads)
    memories = [_keys(head, each) for head, each in zip(heads, known.activations, strict=True)]
    finders = [
        Neighbours(keys, known.answers, np.zeros(known.answers.shape[1]), settings.neighbours) for keys in memories
    ]
    queries = [_keys(head, each) for head, each in zip(heads, held.activations, strict=True)]
    tables, judged = _judge(settings, finders, queries, held, known.answers, context.seed)
    lookups = np.array([_lookup_seconds(finder, keys[:1]) for finder, keys in zip(finders, queries, strict=True)])
    kept = whole.worth_it(judged, lookups, context.seed)
    while True:
        stages = whole.stages(kept)
        seconds = np.cumsum(stage_seconds(stages, whole.x, threads) + np.append(lookups[list(kept)], 0))
        answers = _of(judged, kept, seconds)
        outcome = choose(answers, settings.max_accuracy_drop, settings.confidence, context.seed)
        taken = tuple(point for point, limit in zip(kept, outcome.thresholds, strict=True) if limit != NEVER)
        if taken == kept:
            break
        kept = taken
    remembered = [
        Remembered(points[i], whole.outputs[i], memories[i], known.answers, tables[i].limits(-threshold))
        for i, threshold in zip(kept, outcome.thresholds, strict=True)
    ]
    dropped = [point for i, point in enumerate(points) if i not in kept]
    if dropped:
        context.notes.append(f"dropped, since they cost more time than they save: caches behind {', '.join(dropped)}")
    shares = ", ".join(f"{100 * s:.1f} % behind {m.point}" for s, m in zip(outcome.shares, remembered, strict=False))
    context.notes.append(
        f"{shares} and {100 * outcome.shares[-1]:.1f} % at the end; on {outcome.samples} validation samples "
        f"{outcome.lost} answers were lost and {outcome.gained} gained: a drop of at most {100 * outcome.bound:.2f} "
        f"points with {100 * settings.confidence:g} % confidence. Stages and look-ups take "
        f"{1e6 * outcome.seconds:.0f} µs a sample, {1e6 * float(seconds[-1]):.0f} µs to the end"
    )
    return Remembering(stages, remembered, settings.neighbours, proto.graph.output[0].name, outcome, network.eval())


@dataclass(frozen=True)
class _Whole:
    """A network with keys at all points, as a file."""

    settings: ActivationCache
    proto: onnx.ModelProto
    points: tuple[str, ...]
    x: Array
    threads: int

    @property
    def outputs(self) -> list[str]:
        """Names of the keys."""
        return [value.name for value in self.proto.graph.output[1:]]

    def stages(self, kept: Sequence[int], keys: bool = True) -> list[onnx.ModelProto]:
        """Cut behind some of the points."""
        names = [self.outputs[i] for i in kept]
        final = self.proto.graph.output[0].name
        boundaries = exit_boundaries(self.proto.graph, final, names)
        return split(self.proto, boundaries, [*([name] if keys else [] for name in names), [final]])

    def worth_it(self, judged: Answers, lookups: Array, seed: int) -> tuple[int, ...]:
        """Choose the points with which the mean time is least: segments and what is done at points are timed apart."""
        every = range(len(self.points))
        segments = stage_seconds(self.stages(every, keys=False), self.x, self.threads)
        full = stage_seconds(self.stages(every), self.x, self.threads)
        costs = np.maximum(full - segments, 0)[:-1] + lookups
        [whole] = stage_seconds(self.stages((), keys=False), self.x, self.threads)
        drop = self.settings.max_accuracy_drop
        return fastest_points(lambda k, t: _of(judged, k, t), segments, float(whole), costs, drop, seed)


def _of(judged: Answers, kept: Sequence[int], seconds: Array) -> Answers:
    """Leave out some points; `seconds` are for the others and the end."""
    right = judged.right[:, [*kept, judged.right.shape[1] - 1]]
    return Answers(judged.sureness[:, list(kept)], right, judged.original, seconds)


def _judge(
    settings: ActivationCache,
    finders: Sequence[Neighbours],
    queries: Sequence[Array],
    held: _Samples,
    answers: Array,
    seed: int,
) -> tuple[list[RiskTable], Answers]:
    """Set the risks of distances on half of the validation samples, and see how sure the others are."""
    order = np.random.default_rng([seed, 1]).permutation(len(held.y))
    first, others = order[: len(order) // 2], order[len(order) // 2 :]
    tables, sureness, right = [], [], []
    for finder, keys in zip(finders, queries, strict=True):
        chosen, agree, distances = finder.nearest(keys)
        labels = answers.argmax(1)[chosen[:, 0]]
        near = first[agree[first]]
        table = RiskTable(distances[near], labels[near], labels[near] != held.y[near], answers.shape[1])
        risks = np.where(agree, table.risks(distances, labels), NO_RISK_TAKEN)
        risks[risks > 1 - settings.target_precision] = NO_RISK_TAKEN
        tables.append(table)
        sureness.append(-risks[others])
        right.append((finder.look_up(keys)[0].argmax(1) == held.y)[others])
    right.append((held.answers.argmax(1) == held.y)[others])
    judged = Answers(np.column_stack(sureness), np.column_stack(right), held.original[others], np.zeros(len(right)))
    return tables, judged


def _head(activations: Tensor, labels: Array, dimensions: int) -> KeyHead:
    """Project to where the classes differ most, for how much samples of one class differ."""
    means = torch.zeros_like(activations)
    for label in np.unique(labels):
        mine = torch.from_numpy(labels == label)
        means[mine] = activations[mine].mean(0)
    return KeyHead(activations.mean(0), discriminant(activations, activations - means, dimensions))


def _keys(head: KeyHead, activations: Tensor) -> Array:
    with torch.no_grad():
        keys: Array = head(activations).numpy()
    return keys


def _run(
    network: nn.Module, original: nn.Module, points: tuple[str, ...], samples: BatchSource, most: int | None = None
) -> _Samples:
    activations: list[list[Tensor]] = [[] for _ in points]
    answers, labels, right, count = [], [], [], 0
    with evaluating(network), evaluating(original), torch.no_grad():
        for x, y in as_batches(samples):
            with tapped(network, points) as on:
                given = first_output(network(x))
            for each, point in zip(activations, points, strict=True):
                each.append(averaged(on[point]))
            answers.append(given)
            known = given if original is network else first_output(original(x))
            right.append(known.argmax(1) == y)
            labels.append(y)
            count += len(y)
            if most is not None and count >= most:
                break
    return _Samples(
        [torch.cat(each)[:most] for each in activations],
        torch.cat(answers)[:most].numpy(),
        torch.cat(labels)[:most].numpy(),
        torch.cat(right)[:most].numpy(),
    )


def _lookup_seconds(finder: Neighbours, key: Array, repeats: int = 50) -> float:
    taken = []
    for _ in range(repeats):
        started = perf_counter()
        finder.look_up(key)
        taken.append(perf_counter() - started)
    return median(taken)
