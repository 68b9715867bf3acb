"""Runs a reader over made-up inputs in a process of its own, and counts what comes out."""

from __future__ import annotations

import math
import multiprocessing
import random
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from adaptkit.errors import AdaptkitError

from .readers import ArtifactReader, OnnxReader
from .recipes import RecipeReader

Reader = Callable[[random.Random], None]
READERS: dict[str, Callable[[Path], Reader]] = {"recipe": RecipeReader, "manifest": ArtifactReader, "onnx": OnnxReader}
LONGEST = 10.0
"""Seconds after which an input counts as one that hangs."""
MEMORY = 4 * 2**30
"""Bytes of address space that the process may take over what it has when it starts."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Args:
        kind: accepted, refused (with an AdaptkitError), failed (with anything else), hung or died.
        message: Of the error.
    """

    kind: str
    message: str = ""

    @property
    def good(self) -> bool:
        """Whether it is what a user may expect."""
        return self.kind in ("accepted", "refused")


def outcome(reader: Reader, seed: int, number: int) -> Outcome:
    """Give a reader one input, made from a seed and a number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(random.Random(f"{seed} {number}"))
    except AdaptkitError as error:
        return _judged(str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "adaptkit" in Path(frame.filename).parts]
        near = f", called at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        text = str(error).splitlines()[0][:200] if str(error) else ""
        return Outcome("failed", f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno}{near})")
    return Outcome("accepted")


def _judged(message: str) -> Outcome:
    """Take a refusal for one only where it says something that any terminal can show."""
    try:
        message.encode()
    except UnicodeEncodeError:
        return Outcome("failed", f"a message that cannot be printed: {message[:200]!a}")
    return Outcome("refused", message) if message.strip() else Outcome("failed", "an error without a message")


def fuzz(name: str, seed: int, seconds: float, longest: float = LONGEST) -> Iterator[tuple[int, Outcome]]:
    """Send input after input to a process until the time is over; where it dies or hangs, another one goes on."""
    context = multiprocessing.get_context("spawn")
    until, number = math.inf, 0
    while time.monotonic() < until:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, name, seed), daemon=True)
        process.start()
        there.close()
        here.recv()  # ready
        # The first start of a process, with all its imports, is not taken off the time.
        until = min(until, time.monotonic() + seconds)
        while process.is_alive() and time.monotonic() < until:
            found = _asked(here, number, longest)
            yield number, found
            number += 1
            if found.kind in ("hung", "died"):
                break
        process.kill()
        process.join()


def _asked(connection: Connection, number: int, longest: float) -> Outcome:
    try:
        connection.send(number)
        if connection.poll(longest):
            found: Outcome = connection.recv()
            return found
    except (EOFError, ConnectionError):
        return Outcome("died", "the process is gone")
    return Outcome("hung", f"no answer in {longest:g} s")


def _serve(connection: Connection, name: str, seed: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](Path(folder))
        connection.send(None)
        while True:
            connection.send(outcome(reader, seed, connection.recv()))


def tally(found: Iterator[tuple[int, Outcome]], show: Callable[[str], None]) -> dict[str, object]:
    """Count outcomes, and keep one number of each thing that went wrong."""
    counts, bad = Counter[str](), dict[str, list[int]]()
    for number, each in found:
        counts[each.kind] += 1
        if not each.good:
            seen = bad.setdefault(f"{each.kind}: {each.message}", [])
            if not seen:
                show(f"{number}: {each.kind}: {each.message}")
            seen.append(number)
    return {
        "inputs": counts.total(),
        **{kind: counts[kind] for kind in ("accepted", "refused", "failed", "hung", "died")},
        "wrong": [{"what": what, "times": len(numbers), "first": numbers[0]} for what, numbers in bad.items()],
    }
