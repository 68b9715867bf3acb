"""Which of several models is better than which, in one sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adaptkit.report.schema import Contender

Alike = Collection[frozenset[str]]
"""Pairs of labels between which no difference in accuracy is shown."""

_SAME = 0.02
"""Measured times and energies nearer than this to each other are the same: the next run may turn them round."""
_CAVEAT = " Accuracy counts only where a difference is shown."
_BETTER = {"accuracy": "more accurate", "latency": "faster", "bytes": "smaller", "energy": "more frugal"}


def qualities(one: Contender) -> dict[str, float]:
    """Give what a model is judged by, higher is better; latency is that of the first setting."""
    latency = next(iter(one.latency_ms.values()), None)
    typical = None if latency is None else latency.p50 if latency.mean is None else latency.mean
    found = {
        "accuracy": one.score,
        "latency": None if typical is None else -typical,
        "bytes": -one.bytes,
        "energy": None if one.energy_mj is None else -one.energy_mj,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def better_in(one: Contender, other: Contender, alike: Alike = ()) -> list[str]:
    """List in what one model is better than another, of all that was measured of both.

    Bytes count as they are, latency and energy from a difference of 2 % on, accuracy but for those that are `alike`.
    """
    mine, theirs = qualities(one), qualities(other)
    if {one.label, other.label} in alike:
        del mine["accuracy"]
    return [
        name
        for name, value in mine.items()
        if name in theirs and value - theirs[name] > (_SAME * abs(theirs[name]) if name in ("latency", "energy") else 0)
    ]


def dominates(one: Contender, other: Contender, alike: Alike = ()) -> bool:
    """Say whether a model is better than another in something, and worse in nothing."""
    return bool(better_in(one, other, alike)) and not better_in(other, one, alike)


def verdict(contenders: Sequence[Contender], alike: Alike = ()) -> str:
    """Say which dominates which, and what speaks for each where none does.

    Args:
        contenders: Two or more.
        alike: Pairs between which no difference in accuracy is shown: it counts for neither.

    Example:
        >>> def model(label, bytes, accuracy):
        ...     return Contender(
        ...         label=label, file="", parameters=1, bytes=bytes, accuracy=accuracy, latency_ms={}, speedup={}
        ...     )
        >>> verdict([model("A", 4, 0.9), model("B", 2, 0.9)])
        'B dominates A: it is smaller, and worse in nothing.'
        >>> verdict([model("A", 4, 0.9), model("B", 2, 0.8)])
        'None dominates another: A is more accurate than B, B is smaller than A.'
    """
    pairs = [(one, other) for one in contenders for other in contenders if one is not other]
    won = [(one, other) for one, other in pairs if dominates(one, other, alike)]
    if len(won) == 1:
        one, other = won[0]
        text = f"{one.label} dominates {other.label}: it is {_words(one, other, alike)}, and worse in nothing"
    elif won:
        text = "; ".join(f"{one.label} dominates {other.label} ({_words(one, other, alike)})" for one, other in won)
    else:
        said = [
            f"{one.label} is {_words(one, other, alike)} than {other.label}"
            for one, other in pairs
            if _words(one, other, alike)
        ]
        if not said:
            return f"{_join([one.label for one in contenders])} are the same in all that was measured."
        text = f"None dominates another: {', '.join(said)}"
    free = [one.label for one in contenders if not any(loser is one for _, loser in won)]
    if won and len(contenders) > 2:
        text += f"; {_join(free)} {'is' if len(free) == 1 else 'are'} dominated by none"
    return f"{text}.{_CAVEAT if alike else ''}"


def _words(one: Contender, other: Contender, alike: Alike) -> str:
    return _join([_BETTER[name] for name in better_in(one, other, alike)])


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
