"""What a suite is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness.peers import Peers

Size = Literal["smoke", "nightly"]
Found = dict[str, Any]


class NotHere(Exception):
    """A suite cannot run here; the message says what it lacks."""


@dataclass(frozen=True)
class Place:
    """What a run of a suite works with.

    Args:
        size: "smoke" takes the digits and seconds, "nightly" the real data and minutes.
        data: Folder with data/ and weights/, where there is one.
        results: Where results are written to.
        peers: The others.
        seed: Of all that is drawn.
        recovery: Epochs of training after a cut, the same for everybody; those of the suite where None.
    """

    size: Size
    data: Path | None
    results: Path
    peers: Peers
    seed: int = 0
    recovery: float | None = None

    @property
    def smoke(self) -> bool:
        """Whether the run only shows that the code works."""
        return self.size == "smoke"

    def folder(self) -> Path:
        """Give the data folder.

        Raises:
            NotHere: There is none.
        """
        if self.data is None or not (self.data / "data").is_dir():
            raise NotHere("needs ADAPTKIT_DATA or --data: a folder with data/ and weights/")
        return self.data


@dataclass(frozen=True)
class Verdict:
    """One line of the table in the README: what was compared, and who is better.

    Args:
        what: Compared, with its unit.
        ours: Adaptkit's figure.
        theirs: The best peer's figure.
        peer: Its name.
        outcome: Of adaptkit: "better", "equal" or "worse".
    """

    what: str
    ours: str
    theirs: str
    peer: str
    outcome: Literal["better", "equal", "worse"]


@dataclass(frozen=True)
class Suite:
    """One comparison with peers.

    Args:
        about: What is compared, in a sentence.
        run: Measures, and gives figures that JSON can hold.
        table: Writes the figures as a table in Markdown.
        verdicts: Draws the lines of the README's table from the figures.
        peers: Names of the peers it compares with.
        minutes: How long the nightly size takes on one core, roughly.
        needs_data: Whether the nightly size needs the data folder.
    """

    about: str
    run: Callable[[Place], Found]
    table: Callable[[Found], str]
    verdicts: Callable[[Found], list[Verdict]]
    peers: tuple[str, ...]
    minutes: float
    needs_data: bool = True


Suites = Mapping[str, Suite]


def outcome(ours: float, theirs: float, *, lower_is_better: bool, within: float = 0.05) -> Any:
    """Say how adaptkit stands beside a peer; a difference of less than `within` is none.

    Example:
        >>> outcome(1.0, 2.0, lower_is_better=True), outcome(0.90, 0.91, lower_is_better=False)
        ('better', 'equal')
    """
    if abs(ours - theirs) <= within * abs(theirs):
        return "equal"
    return "better" if (ours < theirs) == lower_is_better else "worse"
