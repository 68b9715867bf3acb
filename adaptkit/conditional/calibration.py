"""From a trained network with exits to stages and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn

from adaptkit.conditional.early_exit import EarlyExit, Exits
from adaptkit.conditional.exit_network import ExitNetwork
from adaptkit.conditional.exit_training import best_temperature
from adaptkit.conditional.placement import fastest_points
from adaptkit.conditional.stage_times import stage_seconds
from adaptkit.conditional.thresholds import NEVER, Answers, Array, Outcome, choose
from adaptkit.errors import ModelError
from adaptkit.export.cut import exit_boundaries, split
from adaptkit.export.onnx import final_onnx
from adaptkit.export.rule import leaves_below
from adaptkit.export.staged import make_stages
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.loading.saved import float_model
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.runtime.session import open_session

if TYPE_CHECKING:
    from adaptkit.export.compose import StageNames
    from adaptkit.technique import Context


def find_exits(settings: EarlyExit, network: nn.Module, original: nn.Module, context: Context, threads: int) -> Exits:
    """Cut a network into stages, drop exits that do not pay, and find the thresholds of the others.

    Raises:
        ModelError: The network has no exits, or cannot be cut at them.
        TargetError: No thresholds keep the drop within its limit.
    """
    inner = float_model(network)
    if not isinstance(inner, ExitNetwork):
        raise ModelError(f"{settings.name} calibrates what its train() returns; this is a {type(inner).__name__}")
    proto = final_onnx(network, context.example_inputs)
    assert context.validation is not None
    logits, y = _run(proto, context.calibration if context.calibration is not None else context.validation)
    temperatures = [best_temperature(torch.from_numpy(exit_), torch.from_numpy(y)) for exit_ in logits[1:]]
    whole = _Whole(settings, proto, inner.points, temperatures, context.example_inputs[0][:1].numpy(), threads)
    seen = whole.answers(context.validation, original)
    kept = whole.worth_it(seen, context.seed)
    while True:
        stages, names = whole.stages(kept)
        answers = seen.of(kept, np.cumsum(stage_seconds(stages, whole.x, threads)))
        outcome = choose(answers, settings.max_accuracy_drop, settings.confidence, context.seed)
        taken = tuple(exit_ for exit_, threshold in zip(kept, outcome.thresholds, strict=True) if threshold != NEVER)
        if taken == kept:
            break
        kept = taken
    points = tuple(inner.points[number] for number in kept)
    dropped = [point for point in inner.points if point not in points]
    if dropped:
        context.notes.append(f"dropped, since they cost more time than they save: exits behind {', '.join(dropped)}")
    context.notes.append(_summary(points, outcome, float(answers.seconds[-1]), settings))
    sign = -1.0 if leaves_below(settings.rule) else 1.0
    thresholds = tuple(sign * threshold for threshold in outcome.thresholds)
    return Exits(stages, names, points, settings.rule, thresholds, outcome, network.eval(), kept, settings.single_file)


@dataclass(frozen=True)
class _Seen:
    """What all exits say to the validation samples."""

    sureness: Array
    right: Array
    original: Array

    def of(self, kept: Sequence[int], seconds: Array) -> Answers:
        """Leave out some exits; `seconds` are for the others and the last answer."""
        return Answers(
            self.sureness[:, list(kept)], self.right[:, [*kept, self.right.shape[1] - 1]], self.original, seconds
        )


@dataclass(frozen=True)
class _Whole:
    """A network with all its exits, as a file."""

    settings: EarlyExit
    proto: onnx.ModelProto
    points: tuple[str, ...]
    temperatures: Sequence[float]
    x: Array
    threads: int

    def stages(self, kept: Sequence[int]) -> tuple[list[onnx.ModelProto], list[StageNames]]:
        """Cut behind some of the exits."""
        outputs = self._outputs()
        return make_stages(
            self.proto, [outputs[i] for i in kept], self.settings.rule, [self.temperatures[i] for i in kept]
        )

    def answers(self, samples: BatchSource, original: nn.Module) -> _Seen:
        """Run every stage on every sample."""
        stages, names = self.stages(range(len(self.points)))
        sessions = [open_session(stage.SerializeToString()) for stage in stages]
        sureness, right, known = [], [], []
        sign = -1.0 if leaves_below(self.settings.rule) else 1.0
        with evaluating(original), torch.no_grad():
            for x, y in as_batches(samples):
                crossing, scores, hits = x.numpy(), [], []
                for session, named in zip(sessions, names, strict=True):
                    outputs = [value.name for value in session.get_outputs()]
                    given = dict(zip(outputs, session.run(None, {session.get_inputs()[0].name: crossing}), strict=True))
                    hits.append(given[named.logits].argmax(1) == y.numpy())
                    if named.score:
                        scores.append(sign * given[named.score])
                        crossing = given[outputs[0]]
                sureness.append(np.column_stack(scores))
                right.append(np.column_stack(hits))
                known.append((first_output(original(x)).argmax(1) == y).numpy())
        return _Seen(np.concatenate(sureness), np.concatenate(right), np.concatenate(known))

    def worth_it(self, seen: _Seen, seed: int) -> tuple[int, ...]:
        """Choose the exits with which the mean time is least: segments and heads are timed apart."""
        every = range(len(self.points))
        segments = stage_seconds(self._segments(every), self.x, self.threads)
        full = stage_seconds(self.stages(every)[0], self.x, self.threads)
        heads = np.maximum(full - segments, 0)[:-1]
        [whole] = stage_seconds(self._segments(()), self.x, self.threads)
        return fastest_points(seen.of, segments, float(whole), heads, self.settings.max_accuracy_drop, seed)

    def _segments(self, kept: Sequence[int]) -> list[onnx.ModelProto]:
        """Cut behind some of the exits, and leave the heads out."""
        outputs = [self._outputs()[i] for i in kept]
        final = self.proto.graph.output[0].name
        boundaries = exit_boundaries(self.proto.graph, final, outputs)
        return split(self.proto, boundaries, [*([] for _ in outputs), [final]])

    def _outputs(self) -> list[str]:
        return [value.name for value in self.proto.graph.output[1:]]


def _run(proto: onnx.ModelProto, samples: BatchSource) -> tuple[list[Array], Array]:
    session = open_session(proto.SerializeToString())
    name = session.get_inputs()[0].name
    given, labels = [], []
    for x, y in as_batches(samples):
        given.append(session.run(None, {name: x.numpy()}))
        labels.append(y.numpy())
    return [np.concatenate(parts) for parts in zip(*given, strict=True)], np.concatenate(labels)


def _summary(points: Sequence[str], outcome: Outcome, whole: float, settings: EarlyExit) -> str:
    shares = ", ".join(
        f"{100 * share:.1f} % behind {point}" for share, point in zip(outcome.shares, points, strict=False)
    )
    return (
        f"{shares} and {100 * outcome.shares[-1]:.1f} % at the end; on {outcome.samples} validation samples "
        f"{outcome.lost} answers were lost and {outcome.gained} gained: a drop of at most "
        f"{100 * outcome.bound:.2f} points with {100 * settings.confidence:.0f} % confidence. Stages take "
        f"{1e6 * outcome.seconds:.0f} µs a sample, {1e6 * whole:.0f} µs to the end"
    )
