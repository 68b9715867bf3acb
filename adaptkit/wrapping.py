"""The conditional part of the main job: what is put around the model that the steps have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit.conditional.base import Artifact, misplaced
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.export.packaging import Packaging
from adaptkit.export.verify_artifact import certify_artifact, require_artifact
from adaptkit.metrics.file import PathAccuracy, path_accuracy
from adaptkit.profiling.artifact import artifact_figures, paths_of
from adaptkit.profiling.sample_latency import SampleComparison, compare_on_samples, ratios_of_means
from adaptkit.report import text
from adaptkit.report.schema import Certificate, Figures, Step
from adaptkit.run_dir import StepFolder
from adaptkit.runtime.manifest import MANIFEST
from adaptkit.runtime.model import AdaptedModel
from adaptkit.studies import metrics_of

if TYPE_CHECKING:
    from adaptkit.recipe import Recipe
    from adaptkit.stages import Run

ARTIFACT = "artifact"
"""The folder, inside that of the step, with what `AdaptedModel.load` opens."""
_GIVEN = {"train", "validation", "calibration", "teacher"}


def problems(recipe: Recipe, model: nn.Module) -> Iterator[tuple[int, str]]:
    """Yield everything that is known to be wrong with the conditional entries before any work, with their numbers."""
    yield from misplaced(recipe.conditional, recipe.steps)
    for index, entry in enumerate(recipe.conditional):
        yield from ((index, f"needs {need}, which a recipe cannot give") for need in sorted(entry.needs - _GIVEN))
        yield from ((index, problem) for problem in entry.check(model))


def wrap(run: Run, model: nn.Module) -> tuple[list[Step], Certificate]:
    """Put every entry around what the one before it made, or take up what an earlier process finished.

    An artifact holds PyTorch networks, which its files do not: where the last entry is not finished, those before it
    are put around anew. Their workspaces are kept until then, so that none trains twice.
    """
    folders = [step_folder(run, index) for index in range(len(run.recipe.conditional))]
    if not folders[-1].is_done:
        _wrap_all(run, model, folders)
    else:
        for folder in folders:
            run.show(text.render_step(_step(folder), run.baseline_figures()))
    _publish(run, folders[-1].path / ARTIFACT)
    certificate = folders[-1].read_done(Certificate, "certificate")
    return [_step(folder) for folder in folders], certificate


def step_folder(run: Run, index: int) -> StepFolder:
    """Give the folder of an entry, counted from 0; entries are numbered on after the steps."""
    return run.folder.step(len(run.recipe.steps) + index + 1, run.recipe.conditional[index].name)


def tested(run: Run, figures: Figures, certificate: Certificate) -> tuple[Figures, SampleComparison]:
    """Measure the artifact on the test split, beside the baseline and the model that was wrapped.

    Args:
        run: Whose folder holds them.
        figures: Of the last entry, on validation samples.
        certificate: What is known of the ways through it.

    Returns:
        The figures of the artifact, and the latency of the baseline.
    """
    files = _compared(run)
    folder = step_folder(run, len(run.recipe.conditional) - 1).path / ARTIFACT
    *others, own = compare_on_samples([*files, folder], run.data.test, run.recipe.profile)
    right = [round((path.accuracy or 0.0) * path.samples) for path in certificate.paths]
    taken = tuple(path.samples for path in certificate.paths)
    seen = PathAccuracy(tuple(path.name for path in certificate.paths), taken, tuple(right))
    assert figures.paths is not None
    paths = paths_of(own, others, seen, figures.paths.weight_bytes)
    for way, path in zip(paths.ways, certificate.paths, strict=True):
        way.accuracy_of_all = path.accuracy_of_all
    measured = {"latency_ms": own.latency_ms, "speedup": ratios_of_means(others[0], own), "paths": paths}
    return figures.model_copy(update=measured), others[0]


def _wrap_all(run: Run, model: nn.Module, folders: list[StepFolder]) -> None:
    artifact: Artifact = PlainArtifact(model, run.example(), run.recipe.export.opset)
    for index, (entry, folder) in enumerate(zip(run.recipe.conditional, folders, strict=True)):
        started = time.monotonic()
        torch.manual_seed(run.recipe.seed + len(run.recipe.steps) + index + 1)
        context = run.context(entry.name, folder)
        artifact = entry.wrap(artifact, run.original, context)
        target = folder.make_empty(ARTIFACT)
        artifact.write(target, _packaging(run))
        facts: dict[str, Any] = {}
        if index == len(folders) - 1:
            facts["certificate"] = _certified(run, artifact, target)
        step = Step(
            name=entry.name,
            settings=entry.model_dump(mode="json"),
            figures=_figures(run, artifact, target),
            seconds=time.monotonic() - started,
            notes=context.notes,
        )
        folder.mark_done({"step": step.model_dump(mode="json"), **facts}, drop_workspace=False)
        run.show(text.render_step(step, run.baseline_figures()))
    for folder in folders:
        folder.drop_workspace()


def _certified(run: Run, artifact: Artifact, folder: Path) -> dict[str, Any]:
    certificate = certify_artifact(artifact, folder, run.data.test, run.recipe.export, metrics_of(run.recipe.metrics))
    run.folder.write("certificate.json", certificate.model_dump_json(indent=1) + "\n")
    require_artifact(certificate)
    return certificate.model_dump(mode="json")


def _figures(run: Run, artifact: Artifact, folder: Path) -> Figures:
    validation = run.data.validation
    seen = path_accuracy(AdaptedModel.load(folder), validation)
    found, _ = artifact_figures(folder, artifact.parts, _compared(run), validation, run.recipe.profile, seen)
    return found.model_copy(update={"validation_accuracy": seen.accuracy})


def _compared(run: Run) -> list[Path]:
    """List the baseline, and the model that the steps have left where that is another one."""
    return list(dict.fromkeys([run.folder.path / "baseline.onnx", run.plain_file()]))


def _packaging(run: Run) -> Packaging:
    data = run.data
    return Packaging(run.recipe.export, data.labels, data.mean or (), data.std or (), run.facts["recipe_sha256"])


def _publish(run: Run, artifact: Path) -> None:
    """Copy the artifact to where a run's result is looked for; the manifest comes last and names the rest."""
    files = sorted((path for path in artifact.rglob("*") if path.is_file()), key=lambda path: path.name == MANIFEST)
    for file in files:
        run.folder.write(file.relative_to(artifact).as_posix(), file.read_bytes())


def _step(folder: StepFolder) -> Step:
    return folder.read_done(Step, "step")
