"""Text in columns."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns: the first to the left, the others to the right.

    Example:
        >>> print(table([("", "a", "b"), ("file", "3 MB", "12 MB")]), end="")
                 a      b
        file  3 MB  12 MB
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if position else cell.ljust(width) for position, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)
