"""How results and errors leave the program: results on stdout, everything else on stderr."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from adaptkit.errors import AdaptkitError, RecipeError

INTERRUPTED = 130


class InterruptedByUserError(AdaptkitError):
    """The user stopped the program; the message says how to go on."""

    exit_code = INTERRUPTED


def print_json(document: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Send what libraries print meanwhile to stderr, so that stdout holds the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_error(message: str, exit_code: int, *, as_json: bool, problems: tuple[str, ...] = ()) -> None:
    """Print an error: as text on stderr, or as the one JSON document on stdout."""
    if as_json:
        print_json({"error": message, **({"problems": problems} if problems else {}), "exit_code": exit_code})
        return
    # The lines of a recipe's problems begin with file:line, where editors and grep look for it.
    prefix = "" if problems or exit_code == INTERRUPTED else "Error: "
    click.echo(f"{prefix}{message}", err=True)


def problems_of(error: AdaptkitError) -> tuple[str, ...]:
    """Give the single problems of an error that holds several."""
    return error.problems if isinstance(error, RecipeError) else ()
