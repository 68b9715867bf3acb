"""From models and samples to a selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
from torch import nn

from adaptkit.conditional.base import Artifact
from adaptkit.conditional.image_features import ImageFeatures
from adaptkit.conditional.members import NEW_TO_ALL, Run, Said, all_opened, ask, gather, sample_seconds
from adaptkit.conditional.neighbours import Judged, Neighbours, best_k
from adaptkit.conditional.premodel import make_premodel
from adaptkit.conditional.selection import Label, best_metric, fastest_right, greedy_set, uncorrelated
from adaptkit.conditional.selector import ModelSelection, Selected
from adaptkit.conditional.thresholds import NEVER, Answers, Array, Outcome, choose
from adaptkit.errors import DataError, TargetError
from adaptkit.runtime.selector import VOTES
from adaptkit.runtime.session import open_session

if TYPE_CHECKING:
    from adaptkit.technique import Context

_FEWEST = 40
"""Validation samples."""


@dataclass(frozen=True)
class Premodel:
    """What votes for models.

    Args:
        proto: From images to votes, one column for each model but the last.
        features: Names of the features that count.
        judged: How well each vote tells what should be done, by cross-validation.
    """

    proto: onnx.ModelProto
    features: tuple[str, ...]
    judged: tuple[Judged, ...]

    def votes(self, x: Array, batch: int = 256) -> Array:
        """Vote on images."""
        session = open_session(self.proto.SerializeToString(), threads=1)
        return np.concatenate([session.run([VOTES], {"input": x[i : i + batch]})[0] for i in range(0, len(x), batch)])


def find_selector(settings: ModelSelection, inner: Artifact, original: nn.Module, context: Context) -> Selected:
    """Load the models, ask them about the validation samples, learn when to use which, and find the thresholds.

    Raises:
        DataError: There are too few validation samples.
        TargetError: No thresholds keep the drop within its limit, or they save nothing.
    """
    members = gather(settings.models, inner, original, context)
    assert context.validation is not None
    with all_opened(members) as models:
        said = ask(models, original, context.validation)
        seconds = sample_seconds([Run(model) for model in models], said.x)
        stored, tested = halves(said, context.seed)
        kept = worth_having(settings, stored, seconds)
        while True:
            premodel = learn(settings, stored, kept, context.seed)
            looking = sample_seconds([look(premodel), Run(models[-1])], said.x)[0]
            answers = Answers(premodel.votes(tested.x), tested.right[:, kept], tested.original, looking + seconds[kept])
            outcome = choose(answers, settings.max_accuracy_drop, settings.confidence, context.seed, "vote")
            taken = [n for n, limit in zip(kept, [*outcome.thresholds, 0], strict=True) if limit != NEVER]
            if taken == kept:
                break
            kept = taken
    if outcome.seconds >= seconds[-1]:
        raise TargetError(
            f"the selector would take {1e6 * outcome.seconds:.0f} µs a sample on average, {1e6 * looking:.0f} µs of it "
            f"to look at the image, the large model alone {1e6 * seconds[-1]:.0f} µs: {_judgement(premodel)}; use a "
            "cascade, or allow a larger max_accuracy_drop"
        )
    _tell(settings, context.notes, kept, outcome, premodel, looking, seconds)
    chosen = tuple(members[number] for number in kept)
    return Selected(premodel.proto, chosen, outcome.thresholds, said.logits.shape[2], outcome)


def halves(said: Said, seed: int) -> tuple[Said, Said]:
    """Divide samples into those that are asked as neighbours, and those that test.

    Raises:
        DataError: There are too few.
    """
    if len(said.y) < _FEWEST:
        raise DataError(f"selector needs at least {_FEWEST} validation samples; got {len(said.y)}: give more")
    order = np.random.default_rng([seed, 1]).permutation(len(said.y))
    one, other = np.array_split(order, 2)
    return said.part(one), said.part(other)


def labels(settings: ModelSelection, said: Said) -> Label:
    """Give what tells which of some models is the one to use for each sample."""
    if settings.label == "fastest_right":
        return partial(fastest_right, said.right)
    shifted = np.exp(said.logits - said.logits.max(axis=2, keepdims=True))
    p = shifted / shifted.sum(axis=2, keepdims=True)
    return partial(best_metric, p[:, np.arange(len(said.y)), said.y].T)


def worth_having(settings: ModelSelection, said: Said, seconds: Array) -> list[int]:
    """Choose the models, from the fastest to the last one.

    Raises:
        TargetError: None is worth having.
    """
    last = len(seconds) - 1
    faster = [int(number) for number in np.argsort(seconds[:-1], kind="stable") if seconds[number] < seconds[last]]
    kept = greedy_set(labels(settings, said), faster, last, settings.min_gain)
    if len(kept) == 1:
        raise TargetError(
            f"none of the models is faster than the large one and the one to use for {100 * settings.min_gain:g} % of "
            "the samples: name others, or lower min_gain"
        )
    return kept


def learn(settings: ModelSelection, said: Said, kept: list[int], seed: int) -> Premodel:
    """Store samples as neighbours that say which model is the one to use.

    Args:
        settings: How.
        said: By all models about the samples to store.
        kept: The models to choose from, from the fastest to the last one.
        seed: Of the cross-validation.
    """
    features = ImageFeatures.of(said.x)
    everything, places = features.compute(said.x), labels(settings, said)(kept)
    chosen = uncorrelated(everything, (places == 0).astype(float), settings.max_correlation)
    if not chosen:
        raise DataError("the validation images all look the same to the selector: give real images")
    found = everything[:, chosen]
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    points = (found - mean) / deviation
    asked, judged = [], []
    for rows, says in _questions(settings, places, len(kept)):
        if len(rows) < settings.folds:
            raise DataError(
                f"only {len(rows)} validation samples are left to learn from, for {settings.folds} folds: give more"
            )
        best = best_k(points[rows], says, settings.neighbours, settings.folds, seed)
        asked.append(Neighbours(points[rows], says, best.k))
        judged.append(best)
    proto = make_premodel(features, chosen, mean, deviation, asked)
    return Premodel(proto, tuple(features.names[number] for number in chosen), tuple(judged))


def _questions(settings: ModelSelection, places: Array, models: int) -> list[tuple[Array, Array]]:
    """List what neighbours are asked: which samples, and what each says."""
    if settings.classifier == "single":
        upto = places[:, None] <= np.arange(models - 1)
        return [(np.arange(len(places)), upto.astype(np.int64))]
    found = []
    for number in range(models - 1):
        rows = np.flatnonzero(places >= number)
        found.append((rows, (places[rows] == number).astype(np.int64)[:, None]))
    return found


def look(premodel: Premodel) -> Callable[[Array], int]:
    """Give a vote on one sample, for `sample_seconds`."""
    session = open_session(premodel.proto.SerializeToString(), threads=1)

    def run(x: Array) -> int:
        session.run([VOTES], {"input": x})
        return 0

    return run


def _tell(
    settings: ModelSelection,
    notes: list[str],
    kept: Sequence[int],
    outcome: Outcome,
    premodel: Premodel,
    looking: float,
    seconds: Array,
) -> None:
    names = [spec.zoo or spec.torchvision or spec.python or str(spec.folder) for spec in settings.models]
    dropped = [name for number, name in enumerate(names) if number not in kept]
    if dropped:
        notes.append(f"left out, since they are not used or not worth having: {', '.join(dropped)}")
    used = [*(names[number] for number in kept[:-1]), "the large model"]
    shares = ", ".join(f"{100 * share:.1f} % to {name}" for name, share in zip(used, outcome.shares, strict=True))
    notes.append(
        f"{shares}; on {outcome.samples} validation samples {outcome.lost} answers were lost and {outcome.gained} "
        f"gained: a drop of at most {100 * outcome.bound:.2f} points with {100 * settings.confidence:.0f} % confidence"
        f". A sample takes {1e6 * outcome.seconds:.0f} µs on average, {1e6 * looking:.0f} µs of it to look at the image"
        f", and {1e6 * (looking + seconds[-1]):.0f} µs at worst, {1e6 * seconds[-1]:.0f} µs with the large model alone"
    )
    notes += [_judgement(premodel), NEW_TO_ALL]


def _judgement(premodel: Premodel) -> str:
    told = " and ".join(
        f"{100 * judged.right:.1f} % ({judged.k} neighbours; {100 * judged.blind:.1f} % without looking)"
        for judged in premodel.judged
    )
    return f"{len(premodel.features)} features tell rightly whether a model is the one to use for {told}"
