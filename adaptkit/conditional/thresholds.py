"""How sure an exit must be: as little as the accuracy allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from adaptkit.errors import TargetError
from adaptkit.metrics.bounds import drop_bound

Array: TypeAlias = np.ndarray[Any, Any]

NEVER = float("inf")
"""The threshold of an exit that is not taken."""
_PRICES = 64
_STEP = 1 / 32
_DEVIATIONS = 1.645
_SHARE = 0.3


@dataclass(frozen=True)
class Answers:
    """What every exit of a model says to some samples.

    Args:
        sureness: N × exits but the last; the larger, the surer.
        right: N × exits: whether the answer is right.
        original: N: whether the original model's answer is right.
        seconds: Time from the input to each exit's answer, all heads on the way counted.
    """

    sureness: Array
    right: Array
    original: Array
    seconds: Array

    def part(self, rows: Array) -> Answers:
        """Take some of the samples."""
        return Answers(self.sureness[rows], self.right[rows], self.original[rows], self.seconds)


@dataclass(frozen=True)
class Outcome:
    """What thresholds do to some samples.

    Args:
        thresholds: On sureness, one an exit but the last; `NEVER` where it is not taken.
        shares: Of the samples that leave at each exit.
        seconds: Mean time of a sample.
        lost: Samples that only the original gets right.
        gained: Samples that only the exits get right.
        samples: All of them.
        bound: The drop in accuracy is at most this, at the confidence asked for.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    seconds: float
    lost: int
    gained: int
    samples: int
    bound: float


def evaluate(answers: Answers, thresholds: tuple[float, ...], confidence: float = 0.95) -> Outcome:
    """Send samples through the exits: each leaves at the first where it is sure enough.

    Example:
        >>> answers = Answers(np.array([[0.9], [0.2]]), np.array([[True, True], [False, True]]),
        ...                   np.array([True, True]), np.array([1.0, 3.0]))
        >>> outcome = evaluate(answers, (0.5,))
        >>> outcome.shares, outcome.seconds, outcome.lost
        ((0.5, 0.5), 2.0, 0)
    """
    leaves = np.column_stack([answers.sureness >= np.asarray(thresholds), np.ones(len(answers.original), bool)])
    place = leaves.argmax(axis=1)
    right = np.take_along_axis(answers.right, place[:, None], axis=1)[:, 0]
    lost, gained = int((answers.original & ~right).sum()), int((right & ~answers.original).sum())
    shares = np.bincount(place, minlength=leaves.shape[1]) / len(place)
    return Outcome(
        thresholds,
        tuple(shares.tolist()),
        float(shares @ answers.seconds),
        lost,
        gained,
        len(place),
        drop_bound(lost, gained, len(place), confidence),
    )


def choose(answers: Answers, max_drop: float, confidence: float = 0.95, seed: int = 0, what: str = "exit") -> Outcome:
    """Find the fastest thresholds whose drop in accuracy stays below a limit with the confidence asked for.

    Three tenths of the samples order candidates from never leaving early to leaving as early as pays; the others
    test them in this order, and the fastest of those before the first that fails is taken. So many candidates can be
    tried, and the bound still holds as often as it says (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then
    test", section 3).

    Args:
        answers: On samples that nothing was trained on.
        max_drop: The limit, as a share.
        confidence: How often the bound must hold.
        seed: Which samples are which.
        what: What the refusal calls a way out.

    Returns:
        What the thresholds do to the samples they were tested on.

    Raises:
        TargetError: No exit can be used within the limit; says how far it got.
    """
    order = np.random.default_rng(seed).permutation(len(answers.original))
    cut = round(_SHARE * len(order))
    tested = answers.part(order[cut:])
    best: Outcome | None = None
    start: Outcome | None = None
    for thresholds in _ever_earlier(answers.part(order[:cut])):
        outcome = evaluate(tested, thresholds, confidence)
        if outcome.bound > max_drop:
            break
        start = start or outcome
        if sum(outcome.shares[:-1]) > 0 and (best is None or outcome.seconds < best.seconds):
            best = outcome
    if best is None:
        kept = evaluate(tested, (NEVER,) * answers.sureness.shape[1], confidence)
        raise TargetError(_refusal(kept, max_drop, confidence, what if start is not None else None))
    return best


def fastest(answers: Answers, max_drop: float, seed: int = 0) -> float:
    """Give the least mean time whose observed drop stays below a limit, on the samples that `choose` orders with.

    The limit is on top of what is lost, by chance on few samples or for good, where nothing leaves early. Nothing is
    bounded: it is for comparing sets of exits before `choose` decides on samples it has not seen.
    """
    order = np.random.default_rng(seed).permutation(len(answers.original))
    ordered = answers.part(order[: round(_SHARE * len(order))])
    outcomes = [evaluate(ordered, thresholds) for thresholds in _ever_earlier(ordered)]
    dropped = [outcome.lost - outcome.gained for outcome in outcomes]
    allowed = max(0, dropped[0]) + max_drop * outcomes[0].samples
    return min(outcome.seconds for outcome, drop in zip(outcomes, dropped, strict=True) if drop <= allowed)


def _refusal(kept: Outcome, max_drop: float, confidence: float, unsure: str | None) -> str:
    limit = f"a drop of at most {100 * max_drop:.2f} points with {100 * confidence:.0f} % confidence"
    reached = (
        f"on {kept.samples} validation samples even without leaving early it is only bounded by {100 * kept.bound:.2f}"
    )
    why = f"no {unsure} is sure enough" if unsure else f"{reached} ({kept.lost} lost, {kept.gained} gained)"
    return f"there are no thresholds for {limit}: {why}. Give more validation samples, train longer, or allow more"


def _ever_earlier(answers: Answers) -> Iterator[tuple[float, ...]]:
    """Yield thresholds for ever lower prices of an error, the first so high that nothing leaves.

    At price λ they make time + λ · errors as small as one threshold an exit can (`_cut`), found from the last exit to
    the first: what leaving early costs or saves depends on what those behind it would do. Where scores tell little,
    all leave at one price and none at the next; steps between two prices let a part of them leave.
    """
    last = (NEVER,) * answers.sureness.shape[1]
    yield last
    most = float(answers.seconds[-1])
    for price in np.geomspace(most * len(answers.original), most / 4, _PRICES).tolist():
        thresholds = _cheapest(answers, price)
        if thresholds != last:
            yield from _steps(answers.sureness, last, thresholds)
        last = thresholds


def _steps(sureness: Array, before: tuple[float, ...], after: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
    """Go from thresholds to others by even steps of the shares that are sure enough; the others come last."""
    ends = [
        [(column >= limit).mean() for column, limit in zip(sureness.T, each, strict=True)] for each in (before, after)
    ]
    moves = np.subtract(ends[1], ends[0])
    count = max(1, int(np.ceil(np.abs(moves).max() / _STEP)))
    for step in range(1, count):
        shares = ends[0] + moves * step / count
        yield tuple(_sure_enough(column, share) for column, share in zip(sureness.T, shares.tolist(), strict=True))
    yield after


def _sure_enough(sureness: Array, share: float) -> float:
    """Find the threshold that a share of the samples reaches.

    Example:
        >>> _sure_enough(np.array([0.1, 0.9, 0.5, 0.7]), 0.5), _sure_enough(np.array([0.1, 0.9]), 0.0)
        (0.7, inf)
    """
    count = round(share * len(sureness))
    return float(np.sort(sureness)[-count]) if count else NEVER


def _cheapest(answers: Answers, price: float) -> tuple[float, ...]:
    wrong, seconds = ~answers.right[:, -1], np.full(len(answers.original), answers.seconds[-1])
    thresholds: list[float] = []
    for exit_ in reversed(range(answers.sureness.shape[1])):
        sureness = answers.sureness[:, exit_]
        lost = ~answers.right[:, exit_] * 1.0 - wrong
        thresholds.insert(0, _cut(sureness, answers.seconds[exit_] - seconds, lost, price))
        leaves = sureness >= thresholds[0]
        wrong = np.where(leaves, ~answers.right[:, exit_], wrong)
        seconds = np.where(leaves, answers.seconds[exit_], seconds)
    return tuple(thresholds)


def _cut(sureness: Array, seconds: Array, lost: Array, price: float) -> float:
    """Find the threshold at and above which time and errors add up to the least; what is not finite is never sure.

    Errors count as they do in a bound, Σ lost + z √(Σ |lost|): one or two answers better by luck are worth nothing.

    Args:
        sureness: N.
        seconds: N, how much longer leaving takes than staying.
        lost: N, 1 where only leaving is wrong, −1 where only staying is.
        price: Of an error, in seconds.

    Example:
        >>> _cut(np.array([0.9, 0.8, 0.7, 0.6]), np.full(4, -1.0), np.array([0.0, 0.0, 0.0, 1.0]), price=3.0)
        0.7
    """
    order = np.argsort(-sureness, kind="stable")
    order = order[np.isfinite(sureness[order])]
    if not len(order):
        return NEVER
    errors = np.cumsum(lost[order]) + _DEVIATIONS * np.sqrt(np.cumsum(np.abs(lost[order])))
    costs, sorted_ = np.cumsum(seconds[order]) + price * errors, sureness[order]
    costs[:-1][sorted_[:-1] == sorted_[1:]] = np.inf  # who is as sure leaves as well
    best = int(costs.argmin())
    return float(sorted_[best]) if costs[best] < 0 else NEVER
