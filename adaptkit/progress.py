"""Progress of long work: one protocol, a silent one, and a bar on the terminal."""

from __future__ import annotations

import sys
import time
from typing import Protocol


class Progress(Protocol):
    """Something that shows how far long work is."""

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show `done` of `total` steps, and a short text such as the running loss."""

    def close(self) -> None:
        """End the line."""


class Silent:
    """Shows nothing."""

    def update(self, done: float, total: float, text: str = "") -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TerminalProgress:
    """One line on stderr, rewritten in place; on something that is not a terminal, a line every ten seconds.

    Args:
        label: What the work is, shown first.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._start = time.monotonic()
        self._last = 0.0
        self._width = 0
        self._live = sys.stderr.isatty()

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show the share done, the text and the time left, at most ten times a second."""
        now = time.monotonic()
        pause = 0.1 if self._live else 10.0
        if now - self._last < pause and done < total:
            return
        self._last = now
        left = (now - self._start) * (total - done) / done if done > 0 else 0.0
        line = f"  {self.label} {100 * done / max(total, 1):3.0f} %  {text}  {_clock(left)} left"
        if self._live:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Clear the line, so that the next output starts clean."""
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"
