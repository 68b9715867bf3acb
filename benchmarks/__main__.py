"""The command: `python -m benchmarks list | run | tables`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
import torch

from adaptkit.errors import AdaptkitError
from benchmarks import pages
from benchmarks.harness import results, scripts
from benchmarks.harness.peers import Peers
from benchmarks.harness.suite import NotHere, Place, Size
from benchmarks.machine import RESULTS
from benchmarks.suites import SUITES

SMOKE_RESULTS = Path("runs", "benchmarks-smoke")


@click.group()
def main() -> None:
    """Measure adaptkit beside its peers."""


@main.command("list")
def list_suites() -> None:
    """Name the suites, and the single scripts of adaptkit's own figures."""
    for name, suite in SUITES.items():
        click.echo(f"{name:18} {suite.about}; {', '.join(suite.peers)}; about {suite.minutes:g} minutes")
    for name, script in scripts.SCRIPTS.items():
        click.echo(f"{name:18} benchmarks/{script.file}; {script.length}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every suite, and the scripts that fit into a night.")
@click.option("--size", type=click.Choice(["smoke", "nightly"]), default="nightly", show_default=True)
@click.option("--peers-env", type=click.Path(path_type=Path), help="Folder for environments of peers that clash.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with data/ and weights/ [ADAPTKIT_DATA].")
@click.option("--recovery", type=float, help="Epochs of training after a cut, where a suite trains.")
@click.option("--results", "folder", type=click.Path(path_type=Path), help="Where results go.")
def run(
    names: tuple[str, ...],
    everything: bool,
    size: Size,
    peers_env: Path | None,
    data: Path | None,
    recovery: float | None,
    folder: Path | None,
) -> None:
    """Run suites by name.

    Smoke runs take the digits, and write into runs/ unless told otherwise.
    """
    chosen = _chosen(names, everything, size)
    torch.set_num_threads(1)
    given = data or (Path(os.environ["ADAPTKIT_DATA"]) if os.environ.get("ADAPTKIT_DATA") else None)
    target = folder or (SMOKE_RESULTS if size == "smoke" else RESULTS)
    environments = peers_env and peers_env.resolve()
    failed = [
        name
        for name in chosen
        if not _ran(name, Place(size, given, target.resolve(), Peers(environments), recovery=recovery))
    ]
    if failed:
        raise click.ClickException(f"did not run: {', '.join(failed)}")


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail where a page is not what the results say.")
def tables(check: bool) -> None:
    """Write the tables of README.md, benchmarks/README.md and docs/ from the results."""
    stale = {path: text for path, text in pages.pages().items() if not path.is_file() or path.read_text() != text}
    if check and stale:
        raise click.ClickException(f"not up to date: {', '.join(map(str, stale))}; run python -m benchmarks tables")
    for path, text in stale.items():
        path.write_text(text)
        click.echo(f"wrote {path}")


def _chosen(names: tuple[str, ...], everything: bool, size: Size) -> list[str]:
    unknown = [name for name in names if name not in SUITES and name not in scripts.SCRIPTS]
    if unknown:
        raise click.UsageError(f"no suite is called {', '.join(unknown)}; there are {', '.join(SUITES)}")
    if everything:
        return [*SUITES, *(name for name, script in scripts.SCRIPTS.items() if script.arguments(size) is not None)]
    if not names:
        raise click.UsageError("name suites, or say --all")
    return list(names)


def _ran(name: str, place: Place) -> bool:
    """Run one suite and write its results; say so, and go on, where it cannot run here."""
    started = time.monotonic()
    try:
        if name in scripts.SCRIPTS:
            scripts.run_script(scripts.SCRIPTS[name], place, os.environ)
        else:
            figures = SUITES[name].run(place)
            path = results.write(place, name, figures, time.monotonic() - started)
            click.echo(f"\n{SUITES[name].table(figures)}\n\n{path}")
    except (NotHere, AdaptkitError) as error:
        click.echo(f"{name}: {error}", err=True)
        return False
    for peer, found in place.peers.found.items():
        click.echo(f"{name}: {peer} {found.get('version') or found['missing']}")
    click.echo(f"{name}: {time.monotonic() - started:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
