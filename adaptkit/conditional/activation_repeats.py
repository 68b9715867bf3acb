"""How near to an earlier sample's activation one must be to have its answer: found on samples that come twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaptkit.conditional.activation_cache import ActivationCache, Recalled
from adaptkit.conditional.activation_keys import Array
from adaptkit.conditional.activation_risk import NEVER, RiskTable
from adaptkit.runtime.cache_index import NOTHING, ExactIndex, nearest
from adaptkit.runtime.cache_store import confidence
from adaptkit.runtime.learned import Entries, Learned, Met
from adaptkit.runtime.result_cache import AnswerForm


@dataclass(frozen=True)
class Twice:
    """Samples that come twice, changed anew each time; a part of them is kept from the first time.

    Args:
        kept: Which are.
        first: Of the network to those that are kept, kept × classes.
        again: Of the network to all when they come again, N × classes.
    """

    kept: Array
    first: Array
    again: Array

    def least_confidence(self, rows: Array, target: float) -> float:
        """Say how sure the network must be of an answer to repeat it, in a share of at least `target` of the cases.

        Args:
            rows: The samples that decide.
            target: Share.

        Returns:
            A softmax probability; 1 where it is never so sure.
        """
        unsure = 1 - confidence(self.first)
        other = self.first.argmax(1) != self.again[self.kept].argmax(1)
        decide = rows[self.kept]
        table = RiskTable(unsure[decide], np.zeros(int(decide.sum()), int), other[decide], 1)
        [limit] = table.limits(1 - target)
        return 1.0 if limit < 0 else 1 - limit


@dataclass(frozen=True)
class Recall:
    """What is found at one point when samples come again.

    A sample's score is d / min(d', c): d is how far the nearest entry is, d' how far the nearest with another answer,
    and c the median of d'. At most r is what `cache_index.near` asks for with threshold r · c and ratio r, so that one
    number decides, in a nearly empty cache too.

    Args:
        scores: N; infinity where the nearest entry may not answer.
        answers: N × classes, of the nearest entry.
        typical: c.
    """

    scores: Array
    answers: Array
    typical: float

    @classmethod
    def of(cls, first: Array, again: Array, twice: Twice, min_confidence: float) -> Recall:
        """Keep what is kept, and look up all samples.

        Args:
            first: Keys of what is kept.
            again: Keys of all samples when they come again.
            twice: Their answers.
            min_confidence: Entries that the network is less sure of do not answer.
        """
        index = ExactIndex(len(first), first.shape[1])
        for slot, (key, label) in enumerate(zip(first, twice.first.argmax(1).tolist(), strict=True)):
            index.add(slot, key, label)
        found = nearest(index, again)
        others = found.others[np.isfinite(found.others)]
        typical = min(1.0, float(np.median(others))) if len(others) else 1.0
        sure = (found.slots != NOTHING) & (confidence(twice.first) >= min_confidence)[found.slots]
        scores = found.distances / np.maximum(np.minimum(found.others, typical), np.finfo(np.float32).tiny)
        usable = sure & (scores < 1)
        return cls(np.where(usable, scores, NEVER), twice.first[found.slots], typical)

    def limit(self, rows: Array, own: Array, target: float) -> float:
        """Say up to which score a share of at least `target` of the answers is the network's own; −1 where none is.

        Args:
            rows: The samples that decide.
            own: N, classes that the network answers.
            target: Share.
        """
        near = rows & np.isfinite(self.scores)
        wrong = self.answers.argmax(1) != own
        [limit] = RiskTable(self.scores[near], np.zeros(int(near.sum()), int), wrong[near], 1).limits(1 - target)
        return limit


def recalled(
    settings: ActivationCache, found: Recall, point: str, key: str, dimensions: int, score: float, min_confidence: float
) -> Recalled:
    """Put down how entries at a point answer.

    Args:
        settings: Of the cache.
        found: At that point.
        point: The module it stands behind.
        key: Name of the keys in the stage.
        dimensions: Of a key.
        score: Up to which they answer.
        min_confidence: How sure the network must be of an answer that is given again at once.
    """
    assert settings.capacity
    ratio = min(1.0, float(np.nextafter(score, 2)))
    entries = Entries(
        key=key,
        dimensions=dimensions,
        threshold=min(ratio * found.typical, float(np.nextafter(1, 0))),
        ratio=ratio,
        min_confidence=min_confidence,
        trust=settings.trust,
        capacity=settings.capacity,
        eviction=settings.eviction,
        ttl_seconds=settings.ttl_seconds,
        answer=AnswerForm.model_validate({"dtype": found.answers.dtype.name, "shape": found.answers.shape[1:]}),
    )
    return Recalled(point, entries)


class Filled:
    """A full cache, to time: everything is looked up, and learnt as if nothing had been found.

    Args:
        entries: How it is kept.
        seed: Of its keys.
    """

    def __init__(self, entries: Entries, seed: int) -> None:
        self._learned, self._form = Learned(entries), entries.answer
        rng = np.random.default_rng(seed)
        keys = rng.standard_normal((entries.capacity, entries.dimensions)).astype(np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        nothing = Met(keys, [NOTHING] * len(keys), np.zeros(len(keys), np.int64))
        self._learned.learn(nothing, self._answers(rng.integers(0, self._form.shape[0], len(keys))))

    def look_up(self, keys: Array) -> None:
        """Look up, and learn."""
        _, _, met = self._learned.look_up(keys)
        self._learned.learn(met, self._answers(np.zeros(len(keys), np.int64)))

    def _answers(self, labels: Array) -> Array:
        answers = np.zeros((len(labels), *self._form.shape), self._form.dtype)
        answers[np.arange(len(labels)), labels] = 1
        return answers
