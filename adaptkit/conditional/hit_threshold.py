"""How near an entry must be to answer in the model's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from adaptkit.errors import TargetError
from adaptkit.metrics.bounds import share_bound
from adaptkit.runtime.cache_index import Nearest, hits

Array: TypeAlias = np.ndarray[Any, Any]
_NOTCHES = 32
_CAPS = (0.5, 0.8, 0.95, 1.0)
_SHARE = 0.3


@dataclass(frozen=True)
class LookUps:
    """What a cache that holds some entries finds for some queries.

    Args:
        nearest: What is found for N queries.
        same: N, whether that entry's answer is the model's own.
        right: N, whether it is the label.
        at_once: N, whether the model is sure enough of that entry's answer to give it again at once.
    """

    nearest: Nearest
    same: Array
    right: Array
    at_once: Array

    def part(self, rows: Array) -> LookUps:
        """Take some of the queries."""
        return LookUps(
            Nearest(*(each[rows] for each in self.nearest)), self.same[rows], self.right[rows], self.at_once[rows]
        )


@dataclass(frozen=True)
class HitRule:
    """A rule for hits, and what it does to the queries it was tested on.

    Args:
        threshold: An entry at most this far away answers.
        ratio: And only if it is nearer than this share of the distance to the nearest entry with another answer.
        min_confidence: Answers that the model is less sure of are not given at once.
        hits: Queries answered.
        at_once: Of those, by entries that the model is not asked about again first.
        wrong: Of those, answers that are not the model's own.
        samples: All queries.
        precision_bound: At least this share of the hits has the model's own answer, at the confidence asked for.
    """

    threshold: float
    ratio: float
    min_confidence: float
    hits: int
    at_once: int
    wrong: int
    samples: int
    precision_bound: float


def apply_rule(
    found: LookUps, threshold: float, ratio: float, min_confidence: float, confidence: float = 0.95
) -> HitRule:
    """See what a rule does.

    Example:
        >>> nearest = Nearest(np.array([0, 1, 2]), np.array([0.1, 0.2, 0.9]), np.full(3, 1.0))
        >>> found = LookUps(nearest, np.array([True, False, True]), np.ones(3, bool), np.ones(3, bool))
        >>> rule = apply_rule(found, threshold=0.5, ratio=0.4, min_confidence=0.0)
        >>> rule.hits, rule.wrong
        (2, 1)
    """
    hit = hits(found.nearest, threshold, ratio)
    count, wrong = int(hit.sum()), int((hit & ~found.same).sum())
    bound = 1 - share_bound(wrong, count, confidence)
    return HitRule(
        threshold, ratio, min_confidence, count, int((hit & found.at_once).sum()), wrong, len(found.same), bound
    )


def choose_rule(
    found: Mapping[float, LookUps], target: float, limit: float, confidence: float = 0.95, seed: int = 0
) -> HitRule:
    """Find the rule with the most hits at once whose precision is bounded from below by a target.

    Three tenths of the queries order the candidates, the safest first; the others test them in this order until one
    fails, and of those before the one with the most hits at once is taken. So many candidates can be tried, and the
    bound still holds as often as it says (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then test",
    section 3).

    Args:
        found: What is found when answers of at least this confidence are given at once; the same queries everywhere.
        target: Precision asked for.
        limit: Thresholds are less than this.
        confidence: How often the bound must hold.
        seed: Which queries are which.

    Returns:
        The rule, and what it does to the queries it was tested on.

    Raises:
        TargetError: There is none; says how far it got.
    """
    count = len(next(iter(found.values())).same)
    order = np.random.default_rng(seed).permutation(count)
    first, others = order[: round(_SHARE * count)], order[round(_SHARE * count) :]
    tried = [
        apply_rule(each.part(first), threshold, ratio, sure, confidence)
        for sure, each in found.items()
        for threshold, ratio in _candidates(each.part(first).nearest, limit)
    ]
    tried.sort(key=_safety, reverse=True)
    best: HitRule | None = None
    failed: HitRule | None = None
    for each in tried:
        part = found[each.min_confidence].part(others)
        tested = apply_rule(part, each.threshold, each.ratio, each.min_confidence, confidence)
        if tested.precision_bound < target:
            failed = tested
            break
        if best is None or (tested.at_once, tested.hits) > (best.at_once, best.hits):
            best = tested
    if best is None:
        raise TargetError(_refusal(failed, target, confidence))
    return best


def _safety(rule: HitRule) -> tuple[float, float, int]:
    """Put the safest first; of those a thousandth apart, which few samples cannot tell, the most confident."""
    return round(rule.precision_bound, 3), rule.min_confidence, rule.hits


def _candidates(found: Nearest, limit: float) -> list[tuple[float, float]]:
    """List thresholds and ratios between which the queries fall."""
    usable = (found.distances < limit) & (found.distances < found.others)
    if not usable.any():
        return []
    distances, others = found.distances[usable], found.others[usable]
    notches = np.unique(np.quantile(distances / others, np.linspace(0, 1, _NOTCHES), method="higher"))
    ratios = np.minimum(1.0, np.nextafter(notches, 2))
    caps = np.unique(np.quantile(distances, _CAPS, method="higher"))
    return [(float(cap), float(ratio)) for cap in caps for ratio in ratios]


def _refusal(failed: HitRule | None, target: float, confidence: float) -> str:
    wish = f"hits that are right in at least {100 * target:g} % with {100 * confidence:g} % confidence"
    if failed is None:
        return f"there is no threshold for {wish}: no query is near any entry. Give more validation samples"
    needed = int(np.ceil(np.log(1 - confidence) / np.log(target)))
    return (
        f"there is no threshold for {wish}: the safest one is right in {failed.hits - failed.wrong} of {failed.hits} "
        f"hits, which is at least {100 * failed.precision_bound:.2f} %; even without an error it takes {needed} hits. "
        "Give more validation samples, smaller perturbations, or a lower target_precision"
    )
