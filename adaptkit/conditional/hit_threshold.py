"""How near an entry must be to answer in the model's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from adaptkit.conditional.bounds import share_bound
from adaptkit.errors import TargetError

Array: TypeAlias = np.ndarray[Any, Any]
_NOTCHES = 48
_SHARE = 0.3


@dataclass(frozen=True)
class LookUps:
    """What a cache that holds some entries finds for some queries.

    Args:
        distance: N, to the nearest entry; infinity where there is none.
        same: N, whether that entry's answer is the model's own.
        right: N, whether it is the label.
    """

    distance: Array
    same: Array
    right: Array

    def part(self, rows: Array) -> LookUps:
        """Take some of the queries."""
        return LookUps(self.distance[rows], self.same[rows], self.right[rows])


@dataclass(frozen=True)
class HitRule:
    """A rule for hits, and what it does to the queries it was tested on.

    Args:
        threshold: An entry at most this far away answers.
        min_confidence: Answers that the model is less sure of are not stored.
        hits: Queries answered.
        wrong: Of those, answers that are not the model's own.
        samples: All queries.
        precision_bound: At least this share of the hits has the model's own answer, at the confidence asked for.
    """

    threshold: float
    min_confidence: float
    hits: int
    wrong: int
    samples: int
    precision_bound: float


def apply_rule(found: LookUps, threshold: float, min_confidence: float, confidence: float = 0.95) -> HitRule:
    """See what a threshold does.

    Example:
        >>> found = LookUps(np.array([0.1, 0.2, 0.9]), np.array([True, False, True]), np.array([True, True, True]))
        >>> rule = apply_rule(found, 0.5, 0.0)
        >>> rule.hits, rule.wrong
        (2, 1)
    """
    hit = found.distance <= threshold
    hits, wrong = int(hit.sum()), int((hit & ~found.same).sum())
    bound = 1 - share_bound(wrong, hits, confidence)
    return HitRule(float(threshold), min_confidence, hits, wrong, len(found.same), bound)


def choose_rule(
    found: Mapping[float, LookUps], target: float, limit: float, confidence: float = 0.95, seed: int = 0
) -> HitRule:
    """Find the rule with the most hits whose precision is bounded from below by a target.

    Three tenths of the queries order the candidates, the safest first; the others test them in this order until one
    fails, and of those before the one with the most hits is taken. So many candidates can be tried, and the bound still
    holds as often as it says (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then test", section 3).

    Args:
        found: What is found when only answers of at least this confidence are stored; the same queries everywhere.
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
        apply_rule(each.part(first), threshold, sure, confidence)
        for sure, each in found.items()
        for threshold in _notches(each.distance[first], limit)
    ]
    tried.sort(key=lambda rule: (rule.precision_bound, rule.hits), reverse=True)
    best: HitRule | None = None
    failed: HitRule | None = None
    for candidate in tried:
        tested = apply_rule(
            found[candidate.min_confidence].part(others), candidate.threshold, candidate.min_confidence, confidence
        )
        if tested.precision_bound < target:
            failed = tested
            break
        if best is None or tested.hits > best.hits:
            best = tested
    if best is None:
        raise TargetError(_refusal(failed, target, confidence))
    return best


def _notches(distances: Array, limit: float) -> list[float]:
    usable = distances[distances < limit]
    if not len(usable):
        return []
    return [float(notch) for notch in np.unique(np.quantile(usable, np.linspace(0, 1, _NOTCHES), method="lower"))]


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
