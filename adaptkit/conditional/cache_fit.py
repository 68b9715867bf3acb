"""From an artifact to a cache in front of it: keys, threshold, capacity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import numpy as np
import onnx
import torch
from torch import Tensor

from adaptkit.conditional.base import Artifact, opened
from adaptkit.conditional.cachier import best_capacity, lfu_miss_rate, lru_miss_rate, zipf
from adaptkit.conditional.hit_threshold import Array, HitRule, LookUps, choose_rule
from adaptkit.conditional.keys import KeyMaker, centres, discriminant, mirrored, perceptual_hash, pooled
from adaptkit.conditional.result_cache import Cached, Lists, Popularity, ResultCache
from adaptkit.errors import DataError
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.bounds import share_bound
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.cache_index import NOTHING, BitIndex, ExactIndex, Index, ListIndex, Nearest, hits, nearest
from adaptkit.runtime.cache_store import runs_to_trust
from adaptkit.runtime.result_cache import BITS, AnswerForm
from adaptkit.runtime.session import open_session
from adaptkit.technique import Context

_CAPACITIES = (300, 1_000, 3_000, 10_000, 30_000, 100_000)
_BATCH = 128


def fit_cache(settings: ResultCache, inner: Artifact, context: Context) -> Cached:
    """Put a cache in front of an artifact.

    Raises:
        DataError: There are too few samples, or the key does not fit them.
        TargetError: No threshold has the precision asked for.
    """
    assert context.validation is not None
    assert context.calibration is not None
    rng = np.random.default_rng(context.seed)
    known, _ = _all(context.calibration)
    proto = key_maker(settings, known, rng).onnx(tuple(known.shape[1:]))
    make_keys = _Keys(proto, settings)
    lists = None
    if isinstance(settings.search, Lists):
        lists = centres(torch.from_numpy(make_keys(known)), settings.search.lists, context.seed).numpy()
    with opened(inner) as model:
        seen = _see(settings, model, make_keys, context.validation, rng)
        seconds = _model_seconds(model, seen.example)
    kinds = Indexes(settings, lists, seen.keys.shape[1:])
    limit = 1.0 if settings.unit == "cosine" else float(BITS)
    everything = seen.look_up(kinds)
    found = {sure: seen.answered(everything, sure) for sure in settings.min_confidences}
    rule = choose_rule(found, settings.target_precision, limit, settings.confidence, context.seed)
    taken = found[rule.min_confidence]
    hit = hits(taken.nearest, rule.threshold, rule.ratio)
    context.notes.append(_summary(settings, rule, taken, seen))
    capacity = settings.capacity if isinstance(settings.capacity, int) else 0
    if isinstance(settings.capacity, Popularity):
        recognised = float(hit[seen.repeated].mean())
        capacity = _capacity(settings, settings.capacity, kinds, recognised, seconds, context)
    dimensions = BITS if settings.unit == "bits" else int(seen.keys.shape[1])
    form = AnswerForm.model_validate({"dtype": seen.answers.dtype.name, "shape": seen.answers.shape[1:]})
    return Cached(inner, proto, settings, rule, dimensions, capacity, lists, form, float(hit.mean()), context.seed)


def key_maker(settings: ResultCache, x: Tensor, rng: np.random.Generator) -> KeyMaker:
    """Find what turns inputs into keys, from samples.

    Args:
        settings: Of the cache.
        x: Samples, N × ….
        rng: Source of perturbations.

    Raises:
        DataError: The key does not fit the samples, or they all look the same.
    """
    cells = settings.cells
    if settings.key == "hash":
        if x.ndim != 4:
            raise DataError(
                f"a hash is of images, N × C × H × W; here are {list(x.shape)}: use an embedding as the key"
            )
        flat = pooled(x, cells)
        return KeyMaker(
            cells, flat.mean(0), perceptual_hash(*_pooled_shape(x, cells), settings.perturbations.flip), unit=False
        )
    values, again = (pooled(settings.perturbations.apply(x, rng), cells) for _ in range(2))
    fold = settings.perturbations.flip and x.ndim == 4
    if fold:
        shape = _pooled_shape(x, cells)
        values, again = (mirrored(each.T, *shape).T for each in (values, again))
    projection = discriminant(values, values - again, settings.dimensions)
    return KeyMaker(cells, values.mean(0), mirrored(projection, *shape) if fold else projection)


class _Keys:
    """Makes keys as the runtime does: unit vectors, or hashes."""

    def __init__(self, proto: onnx.ModelProto, settings: ResultCache) -> None:
        self._session, self._bits = open_session(proto.SerializeToString(), 1), settings.unit == "bits"

    def __call__(self, x: Tensor) -> Array:
        found = np.concatenate([self._session.run(None, {"input": part.numpy()})[0] for part in torch.split(x, _BATCH)])
        return np.packbits(found > 0, axis=1).view(np.uint64)[:, 0] if self._bits else found


@dataclass(frozen=True)
class Indexes:
    """Makes empty indexes of the kind that the cache will have."""

    settings: ResultCache
    lists: Array | None
    shape: tuple[int, ...]

    def __call__(self, capacity: int) -> Index:
        """Make one."""
        if self.settings.unit == "bits":
            return BitIndex(capacity)
        if self.lists is None or not isinstance(self.settings.search, Lists):
            return ExactIndex(capacity, self.shape[0])
        return ListIndex(capacity, self.lists, self.settings.search.probes)


@dataclass(frozen=True)
class _Seen:
    """Half of the samples as they are stored, and all of them as they come again.

    Args:
        keys: Of the queries.
        answers: Of the model to the queries.
        y: Labels of the queries.
        stored_keys: Of the entries.
        stored_answers: Of the entries.
        trusted: Whether the model agreed with them often enough, each time changed anew.
        repeated: Whether a query is of a sample that is stored.
        example: One sample.
    """

    keys: Array
    answers: Array
    y: Array
    stored_keys: Array
    stored_answers: Array
    trusted: Array
    repeated: Array
    example: Array

    def look_up(self, indexes: Indexes) -> LookUps:
        """Store everything, and search."""
        index = indexes(len(self.stored_keys))
        for slot, (key, answer) in enumerate(zip(self.stored_keys, self.stored_answers, strict=True)):
            index.add(slot, key, int(answer.argmax()))
        parts = [nearest(index, self.keys[at : at + _BATCH]) for at in range(0, len(self.keys), _BATCH)]
        found = Nearest(*(np.concatenate(each) for each in zip(*parts, strict=True)))
        said = np.where(found.slots == NOTHING, -1, self.stored_answers.argmax(-1)[found.slots])
        return LookUps(found, said == self.answers.argmax(-1), said == self.y, np.ones(len(said), bool))

    def answered(self, found: LookUps, min_confidence: float) -> LookUps:
        """Put entries out of reach that the model was neither sure of nor agreed with often enough."""
        slots = found.nearest.slots
        sure = (slots != NOTHING) & (_confidence(self.stored_answers) >= min_confidence)[slots]
        may = sure | ((slots != NOTHING) & self.trusted[slots])
        distances = np.where(may, found.nearest.distances, np.inf)
        return replace(found, nearest=found.nearest._replace(distances=distances), at_once=sure)


def _see(
    settings: ResultCache, model: AdaptedModel, make_keys: _Keys, samples: BatchSource, rng: np.random.Generator
) -> _Seen:
    x, y = _all(samples)
    if len(x) < 2:
        raise DataError(f"{settings.name} needs at least two validation samples; got {len(x)}")
    repeated = np.zeros(len(x), bool)
    repeated[rng.permutation(len(x))[: len(x) // 2]] = True
    first = settings.perturbations.apply(x[torch.from_numpy(repeated)], rng)
    again = settings.perturbations.apply(x, rng)
    stored, answers = (_answers(model, each) for each in (first, again))
    if answers.ndim != 2:
        raise DataError(f"{settings.name} is for classifiers, N × classes; this model answers {list(answers.shape)}")
    trust = _trusted(settings, model, x[torch.from_numpy(repeated)], stored, rng)
    return _Seen(make_keys(again), answers, y.numpy(), make_keys(first), stored, trust, repeated, again[:1].numpy())


def _trusted(settings: ResultCache, model: AdaptedModel, x: Tensor, stored: Array, rng: np.random.Generator) -> Array:
    """Ask the model again, about changed inputs, where it may not be sure; say where it always agreed."""
    trust = np.zeros(len(x), bool)
    asked = np.flatnonzero(_confidence(stored) < max(settings.min_confidences))
    if settings.trust == 1:
        return trust
    for _ in range(runs_to_trust(settings.trust) - 1):
        if not len(asked):
            break
        again = _answers(model, settings.perturbations.apply(x[torch.from_numpy(asked)], rng))
        asked = asked[again.argmax(-1) == stored[asked].argmax(-1)]
    trust[asked] = True
    return trust


def _answers(model: AdaptedModel, x: Tensor) -> Array:
    return np.concatenate([model.predict(part.numpy()) for part in torch.split(x, _BATCH)])


def _all(samples: BatchSource) -> tuple[Tensor, Tensor]:
    batches = list(as_batches(samples))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _confidence(answers: Array) -> Array:
    shifted = np.exp(answers - answers.max(1, keepdims=True))
    sure: Array = shifted.max(1) / shifted.sum(1)
    return sure


def _pooled_shape(x: Tensor, cells: int) -> tuple[int, int, int]:
    height, width = (size // max(1, size // cells) for size in x.shape[2:])
    return x.shape[1], height, width


def _model_seconds(model: AdaptedModel, x: Array, repeats: int = 30) -> float:
    taken = []
    for _ in range(repeats):
        started = perf_counter()
        model(x)
        taken.append(perf_counter() - started)
    return median(taken)


def _capacity(
    settings: ResultCache,
    popularity: Popularity,
    indexes: Indexes,
    recognised: float,
    model_seconds: float,
    context: Context,
) -> int:
    """Choose the capacity with the least expected latency, with look-ups measured at several sizes."""
    capacities = sorted({min(size, popularity.items) for size in _CAPACITIES})
    lookups = lookup_seconds(indexes, capacities, context.seed)
    shares = zipf(popularity.items, popularity.exponent)
    rate = lfu_miss_rate if settings.eviction == "lfu" else lru_miss_rate
    misses = [1 - recognised * (1 - rate(shares, size)) for size in capacities]
    capacity, latency = best_capacity(capacities, lookups, misses, model_seconds)
    place = capacities.index(capacity)
    context.notes.append(
        f"{capacity:,} entries: of {', '.join(f'{size:,}' for size in capacities)} they have the least expected "
        f"latency, {1e6 * latency:.0f} µs a request ({1e6 * lookups[place]:.0f} µs to search, "
        f"{100 * misses[place]:.1f} % misses of {1e6 * model_seconds:.0f} µs each)"
    )
    return capacity


def lookup_seconds(indexes: Indexes, capacities: list[int], seed: int, repeats: int = 50) -> list[float]:
    """Measure how long a search takes, at several numbers of entries."""
    rng = np.random.default_rng(seed)
    found = []
    for size in capacities:
        index = indexes(size)
        keys = _random_keys(indexes, size + repeats, rng)
        for slot, key in enumerate(keys[:size]):
            index.add(slot, key, slot % 10)
        taken = []
        for key in keys[size:]:
            started = perf_counter()
            index.search(key[None])
            taken.append(perf_counter() - started)
        found.append(median(taken))
    return found


def _random_keys(indexes: Indexes, count: int, rng: np.random.Generator) -> Array:
    if indexes.settings.unit == "bits":
        return rng.integers(0, 2**64, count, np.uint64)
    keys = rng.standard_normal((count, *indexes.shape)).astype(np.float32)
    unit: Array = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    return unit


def _summary(settings: ResultCache, rule: HitRule, found: LookUps, seen: _Seen) -> str:
    hit = hits(found.nearest, rule.threshold, rule.ratio)
    false, own = int((hit & ~found.same).sum()), seen.answers.argmax(-1) == seen.y
    low, high = 1 - share_bound(len(hit) - false, len(hit), 0.975), share_bound(false, len(hit), 0.975)
    repeated, new = (100 * hit[rows].mean() for rows in (seen.repeated, ~seen.repeated))
    unit = f"{rule.threshold:.4f} cosine" if settings.unit == "cosine" else f"{rule.threshold:.0f} bits"
    return (
        f"an entry answers within {unit} and {100 * rule.ratio:.1f} % of the distance to the next answer, at once "
        f"where the model gives it at least {100 * rule.min_confidence:g} %; of {rule.samples} validation queries "
        f"{rule.hits} hit, {rule.wrong} of these with another answer than the model's: a hit is right in at least "
        f"{100 * rule.precision_bound:.2f} % with {100 * settings.confidence:g} % confidence. Of all {len(hit)} "
        f"queries {repeated:.1f} % of those that repeat hit and {new:.1f} % of those that are new; "
        f"{100 * false / len(hit):.2f} % were false hits ({100 * low:.2f} to {100 * high:.2f} %). By label "
        f"{100 * found.right[hit].mean():.1f} % of the hits are right, {100 * own[hit].mean():.1f} % by the model"
    )
