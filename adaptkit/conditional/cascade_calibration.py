"""From models and samples to the thresholds of a cascade."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from adaptkit.conditional.base import Artifact
from adaptkit.conditional.cascade import Cascaded, CascadeOfModels
from adaptkit.conditional.exit_training import best_temperature
from adaptkit.conditional.members import (
    NEW_TO_ALL,
    Run,
    Said,
    all_opened,
    ask,
    estimated_millijoules,
    gather,
    sample_seconds,
)
from adaptkit.conditional.thresholds import NEVER, Answers, Array, Outcome, choose, fastest
from adaptkit.errors import TargetError
from adaptkit.export.rule import Rule, leaves_below
from adaptkit.runtime.score import score

if TYPE_CHECKING:
    from adaptkit.technique import Context


def find_cascade(settings: CascadeOfModels, inner: Artifact, original: nn.Module, context: Context) -> Cascaded:
    """Load the models, ask them about the validation samples, time them, and find the thresholds.

    Raises:
        TargetError: No thresholds keep the drop within its limit, or they save nothing.
    """
    members = gather(settings.models, inner, original, context)
    assert context.validation is not None
    with all_opened(members) as models:
        said = ask(models, original, context.validation)
        temperatures = [1.0] * len(settings.models)
        if settings.temperature and context.calibration is not None:
            held = ask(models[:-1], original, context.calibration)
            temperatures = [best_temperature(*map(torch.from_numpy, (logits, held.y))) for logits in held.logits]
        runs = [*(Run(model, settings.rule) for model in models[:-1]), Run(models[-1])]
        seconds = sample_seconds(runs, said.x)
    cost = seconds
    if settings.objective == "energy":
        cost = np.array([estimated_millijoules(member) for member in members])
    seen = replies(said, settings.rule, temperatures, cost)
    kept, outcome = settle(seen, cost, settings.max_accuracy_drop, settings.confidence, context.seed)
    if outcome.seconds >= cost[-1]:
        raise TargetError(
            f"the cascade would take {_shown(outcome.seconds, settings)} a sample on average, the large model alone "
            f"{_shown(cost[-1], settings)}: name smaller models, or allow a larger max_accuracy_drop"
        )
    _tell(settings, context.notes, kept, outcome, seconds, cost)
    sign = -1.0 if leaves_below(settings.rule) else 1.0
    return Cascaded(
        tuple(members[number] for number in (*kept, -1)),
        settings.rule,
        tuple(temperatures[number] for number in kept),
        tuple(sign * threshold for threshold in outcome.thresholds),
        said.logits.shape[2],
        outcome,
    )


def replies(said: Said, rule: Rule, temperatures: Sequence[float], cost: Array) -> Answers:
    """Give a cascade of all models the form of a network with exits: one behind every model.

    Args:
        said: By all models.
        rule: What the scores are.
        temperatures: One a model but the last.
        cost: Of each model alone, in any unit.
    """
    sign = -1.0 if leaves_below(rule) else 1.0
    pairs = zip(said.logits, temperatures, strict=False)
    sureness = np.column_stack([sign * score(logits, rule, temperature) for logits, temperature in pairs])
    return Answers(sureness, said.right, said.original, np.cumsum(cost))


def settle(
    answers: Answers, cost: Array, max_drop: float, confidence: float, seed: int
) -> tuple[tuple[int, ...], Outcome]:
    """Find the models that pay, and their thresholds.

    Args:
        answers: Of all models.
        cost: Of each model alone.
        max_drop: See `thresholds.choose`, as the next two.
        confidence: Of the bound.
        seed: Which samples are which.

    Returns:
        Which of the small models are kept, in order; what the thresholds do.

    Raises:
        TargetError: No small model can be used within the limit.
    """
    numbers = range(len(cost) - 1)
    subsets = [kept for count in numbers for kept in itertools.combinations(numbers, count + 1)]
    kept = min(subsets, key=lambda kept: fastest(_of(answers, cost, kept), max_drop / 2, seed))
    while True:
        outcome = choose(_of(answers, cost, kept), max_drop, confidence, seed, "small model")
        taken = tuple(number for number, limit in zip(kept, outcome.thresholds, strict=True) if limit != NEVER)
        if taken == kept:
            return kept, outcome
        kept = taken


def _of(answers: Answers, cost: Array, kept: tuple[int, ...]) -> Answers:
    """Leave out small models."""
    last = len(cost) - 1
    ways = [*kept, last]
    return Answers(answers.sureness[:, list(kept)], answers.right[:, ways], answers.original, np.cumsum(cost[ways]))


def _tell(
    settings: CascadeOfModels,
    notes: list[str],
    kept: tuple[int, ...],
    outcome: Outcome,
    seconds: Array,
    cost: Array,
) -> None:
    dropped = [_named(settings, number) for number in range(len(settings.models)) if number not in kept]
    if dropped:
        notes.append(f"dropped, since they cost more than they save: {', '.join(dropped)}")
    ways = [*kept, len(cost) - 1]
    reached = np.concatenate([[1.0], 1 - np.cumsum(outcome.shares[:-1])])
    mean, worst, alone = reached @ seconds[ways], seconds[ways].sum(), seconds[-1]
    answered = ", ".join(
        f"{_named(settings, number)} answers {100 * share:.1f} %"
        for number, share in zip(kept, outcome.shares, strict=False)
    )
    notes.append(
        f"{answered}; delegation rate {100 * outcome.shares[-1]:.1f} %; on {outcome.samples} validation samples "
        f"{outcome.lost} answers were lost and {outcome.gained} gained: a drop of at most {100 * outcome.bound:.2f} "
        f"points with {100 * settings.confidence:.0f} % confidence. A sample takes {1e6 * mean:.0f} µs on average and "
        f"{1e6 * worst:.0f} µs at worst, {1e6 * alone:.0f} µs with the large model alone"
    )
    if settings.objective == "energy":
        notes.append(
            f"energy of a sample {_shown(outcome.seconds, settings)} on average, "
            f"{_shown(cost[-1], settings)} with the large model alone"
        )
    notes.append(NEW_TO_ALL)


def _named(settings: CascadeOfModels, number: int) -> str:
    spec = settings.models[number]
    return spec.zoo or spec.torchvision or spec.python or str(spec.folder)


def _shown(cost: float, settings: CascadeOfModels) -> str:
    return f"{1e6 * cost:.0f} µs" if settings.objective == "latency" else f"{cost:.3g} mJ (estimate)"
