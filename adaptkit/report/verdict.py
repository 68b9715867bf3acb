"""The result in a line: how much was won, at what price, and whether that is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from adaptkit.metrics.bounds import share_bound
from adaptkit.report.comparison import baseline_text, gate_values, milliseconds, paired_text, setting_label
from adaptkit.report.numbers import DASH, digits, percent, points, ratio_of, si, times
from adaptkit.report.schema import Figures, Report


class Fact(NamedTuple):
    """A value, what it says, how exact it is, and whether it is bad news."""

    value: str
    words: str
    detail: str
    worse: bool

    def __str__(self) -> str:
        return f"{self.value} {self.words}"


@dataclass(frozen=True)
class Verdict:
    """The result in three facts."""

    speed: Fact
    size: Fact
    accuracy: Fact

    def __str__(self) -> str:
        return f"{self.speed}, {self.size}, {self.accuracy}"


def verdict(report: Report) -> Verdict:
    """Say how much faster and smaller the final file is, at the first latency setting, and what it cost."""
    before, after = report.baseline, report.final
    first = next(iter(after.speedup.values()), None)
    size = ratio_of(before.bytes, after.bytes)
    speed = first.median if first else None
    lost = before.score is not None and after.score is not None and after.score < before.score
    return Verdict(
        Fact(*_said(times(speed, "faster", "slower"), "speed"), _speed_detail(report), (speed or 1) < 0.995),
        Fact(*_said(times(size, "smaller", "larger"), "size"), _size_detail(before, after), (size or 1) < 0.995),
        Fact(*_said(points(before.score, after.score), before.score_name), _score_detail(report), lost),
    )


def _speed_detail(report: Report) -> str:
    key, ratio = next(iter(report.final.speedup.items()), ("", None))
    if ratio is None:
        return ""
    before, after = report.baseline.latency_ms.get(key), report.final.latency_ms.get(key)
    which = "mean" if after is not None and after.mean is not None else "p50"
    change = f"{which} {milliseconds(before, which)} → {milliseconds(after, which)} at {setting_label(key)}"
    spread = f"quartiles {'over blocks of calls' if which == 'mean' else 'of the ratio'}"
    unsure = ": no clear difference" if ratio.low <= 1 <= ratio.high else ""
    return f"{change}; {spread} {digits(ratio.low)}–{digits(ratio.high)}{unsure}"


def _size_detail(before: Figures, after: Figures) -> str:
    return f"{si(before.bytes, 'B')} → {si(after.bytes, 'B')} on disk"


def _score_detail(report: Report) -> str:
    if report.baseline.score_name == "accuracy":
        return _accuracy_detail(report)
    before, after = report.baseline.score, report.final.score
    said = baseline_text(report)
    return f"R² {percent(before)} → {percent(after)}" + (f"; {said}" if said else "")


def _accuracy_detail(report: Report) -> str:
    before, after, samples = report.baseline.accuracy, report.final.accuracy, report.certificate.samples
    if before is None or after is None:
        return ""
    low, high = (percent(bound) for bound in accuracy_interval(after, samples))
    change = round(after * samples) - round(before * samples)
    counted = f"{abs(change):,} {'fewer' if change < 0 else 'more'} of {samples:,} test samples right"
    pair = report.against_baseline
    paired = f". Against the baseline {paired_text(pair)}" if pair is not None else ""
    return f"{percent(before)} → {percent(after)}: {counted}; 95 % interval after {low[:-2]}–{high}{paired}"


def accuracy_interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Bound the accuracy over all possible samples: the exact two-sided 95 % interval of a share.

    Example:
        >>> [round(bound, 4) for bound in accuracy_interval(0.9, 100)]
        [0.8238, 0.951]
    """
    right = round(accuracy * samples)
    return 1 - share_bound(samples - right, samples, 0.975), share_bound(right, samples, 0.975)


def _said(text: str, what: str) -> tuple[str, str]:
    if text == DASH:
        return DASH, f"{what} not measured"
    unit = {"accuracy": "points", "R²": "points of R²"}.get(what)
    if text in ("the same", "nothing lost"):
        return ("0.00", f"{unit} lost") if unit else ("1.00 ×", f"the same {what}")
    value, _, words = text.rpartition(" ")
    return (value.partition(" ")[0], f"{unit} {words}") if unit else (value, words)


def headline(report: Report) -> str:
    """Say whether the result is what was asked for."""
    failed = [gate for gate in report.gates if not gate.passed]
    parts = []
    if not report.certificate.passed:
        parts.append("The file does not compute what the PyTorch model computes: do not use it.")
    for gate in failed:
        limit, found = gate_values(gate)
        parts.append(
            f"Failed: {gate.name} allows at {'least' if gate.name.startswith('min_') else 'most'} {limit}, "
            f"found was {found}."
        )
    if not report.gates:
        parts.append("The recipe sets no gates, so nothing was asked for.")
    elif not failed:
        parts.append("The one gate passed." if len(report.gates) == 1 else f"All {len(report.gates)} gates passed.")
    return " ".join(parts)
