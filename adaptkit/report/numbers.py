"""How the report writes numbers: units, digits, ratios. A value that was not measured is a dash."""

from __future__ import annotations

import math

DASH = "–"
_PREFIXES = ("", "k", "M", "G", "T", "P")


def digits(value: float | None, significant: int = 3) -> str:
    """Write a number with so many significant digits, and no exponent unless it is below 0.0001.

    Example:
        >>> digits(0.64321), digits(1234.5), digits(2e-7), digits(None)
        ('0.643', '1,234', '2.00e-07', '–')
    """
    if value is None:
        return DASH
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if abs(value) < 1e-4:
        return f"{value:.{significant - 1}e}"
    power = math.floor(math.log10(abs(float(f"{value:.{significant - 1}e}"))))  # of the rounded value
    decimals = significant - 1 - power
    return f"{value:,.{max(decimals, 0)}f}"


def si(value: float | None, unit: str = "") -> str:
    """Write a large number with a decimal prefix: 1 MB is 1,000,000 bytes.

    Example:
        >>> si(125_747_840), si(3_432_000, "B"), si(640)
        ('125.7 M', '3.432 MB', '640')
    """
    if value is None:
        return DASH
    power = 0
    while power < len(_PREFIXES) - 1 and float(f"{abs(value) / 1000**power:.4g}") >= 1000:
        power += 1
    number = f"{value:,.0f}" if power == 0 else digits(value / 1000**power, 4)
    return f"{number} {_PREFIXES[power]}{unit}".rstrip()


def microseconds(value: float | None) -> str:
    """Write a time in millionths of a second.

    Example:
        >>> microseconds(12.34)
        '12.3 µs'
    """
    return DASH if value is None else f"{digits(value)} µs"


def percent(share: float | None) -> str:
    """Write a share in percent with two decimals.

    Example:
        >>> percent(0.8971)
        '89.71 %'
    """
    return DASH if share is None else f"{100 * share:.2f} %"


def capital(text: str) -> str:
    """Write the first letter large.

    Example:
        >>> capital("top-1 accuracy")
        'Top-1 accuracy'
    """
    return text[:1].upper() + text[1:]


def points(before: float | None, after: float | None) -> str:
    """Write the difference of two shares in percentage points.

    Example:
        >>> points(0.8971, 0.8909)
        '0.62 points lost'
    """
    if before is None or after is None:
        return DASH
    change = f"{100 * (after - before):+.2f}"
    if float(change) == 0:
        return "nothing lost"
    return f"{change[1:]} points {'gained' if change[0] == '+' else 'lost'}"


def ratio_of(before: float | None, after: float | None) -> float | None:
    """Divide before by after; None where there is no such ratio."""
    return before / after if before and after else None


def times(ratio: float | None, less: str = "", more: str = "") -> str:
    """Write a before/after ratio as a factor of at least one, with the word for its direction.

    Example:
        >>> times(3.612, "faster", "slower"), times(0.8, "faster", "slower"), times(1.52)
        ('3.61 × faster', '1.25 × slower', '1.52 ×')
    """
    if ratio is None:
        return DASH
    if not less:
        return f"{digits(ratio)} ×"
    if f"{ratio:.2f}" == "1.00":
        return "the same"
    return f"{digits(ratio)} × {less}" if ratio > 1 else f"{digits(1 / ratio)} × {more}"


def duration(seconds: float) -> str:
    """Write a time span to the second, or to the tenth of one below ten seconds.

    Example:
        >>> duration(4.21), duration(73.2), duration(3725)
        ('4.2 s', '1 min 13 s', '1 h 2 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
