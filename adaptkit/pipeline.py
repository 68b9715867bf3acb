"""The main job: a recipe in, a run folder with the compressed model and its report out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from adaptkit import gates
from adaptkit.errors import GateFailed
from adaptkit.recipe import Recipe
from adaptkit.report.schema import Report
from adaptkit.run_dir import open_run


def compress(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    show: Callable[[str], None] | None = None,
    progress: bool = True,
) -> Report:
    """Run a recipe: load, measure the baseline, apply every step, wrap, export, verify, profile, report.

    Args:
        recipe: What to do; `read_recipe` reads one from a file.
        output: The run folder; made where it is absent.
        resume: Go on with an unfinished run in that folder; it ends in the same bytes as an undisturbed one.
        show: Gets a line or two of text after every step.
        progress: Show progress bars on stderr.

    Returns:
        The report, which also stands in the folder as report.json and report.html.

    Raises:
        AdaptkitError: Anything wrong with the recipe, the model, the data or the folder, before any work where
            possible.
        GateFailed: A gate failed; everything is written, and the report is the exception's `report`.
    """
    from adaptkit.stages import Run

    started = time.monotonic()
    with open_run(Path(output), resume) as folder:
        run = Run.start(recipe, folder, show=show or _ignore, progress=progress)
        if folder.is_finished:
            return _judged(folder.read_report())
        model, baseline = run.baseline()
        steps = []
        for index, technique in enumerate(recipe.steps, start=1):
            model, step = run.step(index, technique, model)
            steps.append(step)
        if recipe.conditional:
            wrapped, certificate = run.wrap(model)
            steps += wrapped
        else:
            certificate = run.export(model)
        report = run.report(model, baseline, steps, certificate, started)
    return _judged(report)


def _judged(report: Report) -> Report:
    failed = gates.failures(report.gates)
    if failed:
        raise GateFailed(failed, report)
    return report


def _ignore(text: str) -> None:
    del text
