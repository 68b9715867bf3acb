"""The stages of the main job, each of which leaves its result in the run folder."""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit import gates, lock, tasks, wrapping
from adaptkit.errors import RecipeError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.sparse_notes import sparse_notes
from adaptkit.export.verify import certify, require
from adaptkit.loading.data import Data, check_fits, load_data
from adaptkit.loading.models import load_model
from adaptkit.loading.saved import float_model, load, save
from adaptkit.metrics.curve import Curve
from adaptkit.metrics.file import Collector, PathAccuracy, Score, compare_scores, figures_of, score
from adaptkit.metrics.measured import Outputs
from adaptkit.metrics.registry import METRICS
from adaptkit.order import order_problems
from adaptkit.profiling.epr import epr
from adaptkit.profiling.latency import compare
from adaptkit.profiling.summary import figures, layer_table
from adaptkit.progress import Progress, Silent, TerminalProgress
from adaptkit.pruning.masks import lost_zeros, zeros
from adaptkit.recipe import Recipe, dump_recipe, parse_recipe
from adaptkit.report import html, text
from adaptkit.report.schema import Certificate, Figures, MetricValue, Percentiles, Report, Step
from adaptkit.run_dir import LOCK, REPORT, RunFolder, StepFolder
from adaptkit.runtime.model import AdaptedModel
from adaptkit.studies import metrics_of, studies_of
from adaptkit.study.base import Study, measure_all
from adaptkit.study.subject import Subject
from adaptkit.technique import Context, Technique
from adaptkit.techniques import TECHNIQUES


@dataclass
class Run:
    """One run: the recipe, its folder, the model and the data it starts from.

    Args:
        recipe: What to do.
        folder: Where everything goes.
        original: The model as loaded, never changed.
        data: The four splits.
        facts: What the lock file adds to the recipe.
        show: Gets text for the user.
        progress: Whether to show progress bars.
        notes: What the report says about the run as a whole.
    """

    recipe: Recipe
    folder: RunFolder
    original: nn.Module
    data: Data
    facts: dict[str, Any]
    show: Callable[[str], None]
    progress: bool
    notes: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, recipe: Recipe, folder: RunFolder, *, show: Callable[[str], None], progress: bool) -> Run:
        """Load model and data, check every step against them, and write the lock file."""
        beside = Path(recipe.folder or "")
        bar = TerminalProgress("reading images") if progress else None
        data = load_data(recipe.data, recipe.seed, beside, bar)
        original = load_model(recipe.model, data.num_outputs, beside)
        outputs = check_fits(data, original)
        facts = lock.facts(recipe, original, data.sha256)
        run = cls(recipe, folder, original, data, facts, show, progress)
        run._check_steps(outputs)
        run.notes += lock.compare(recipe.lock, facts)
        run._write_lock()
        return run

    def baseline(self) -> tuple[nn.Module, Figures]:
        """Export and measure the model before any step."""
        folder = self.folder.step(0, "baseline")
        if not folder.is_done:
            self._export(self.original, self.folder.path / "baseline.onnx")
            measured = self._figures(self.original, self.folder.path / "baseline.onnx")
            folder.mark_done({"figures": measured.model_dump()})
        return self._build(), self.baseline_figures()

    def step(self, index: int, technique: Technique, model: nn.Module) -> tuple[nn.Module, Step]:
        """Apply one technique, or take up what an earlier process finished; the model comes from disk either way."""
        folder = self.folder.step(index, technique.name)
        if not folder.is_done:
            self._apply(index, technique, model, folder)
        step = folder.read_done(Step)
        self.show(text.render_step(step, self.baseline_figures()))
        return load(self._build, folder.path), step

    def export(self, model: nn.Module) -> Certificate:
        """Write model.onnx and hold it against the PyTorch model over the whole test split."""
        path = self.folder.path / "model.onnx"
        self._take_last_file(model)
        save(model, self.original, self.folder.path)
        certificate = certify(
            model,
            path,
            self.data.test,
            spec=self.recipe.export,
            example_inputs=self.example(),
            metrics=metrics_of(self.recipe.metrics),
        )
        self.folder.write("certificate.json", certificate.model_dump_json(indent=1) + "\n")
        require(certificate)
        self.notes += sparse_notes(float_model(model), path)
        return certificate

    def wrap(self, model: nn.Module) -> tuple[list[Step], Certificate]:
        """Put what the recipe's `conditional` says around the model, and hold that against PyTorch."""
        return wrapping.wrap(self, model)

    def plain_file(self) -> Path:
        """Give the file of the model that the steps have left."""
        if not self.recipe.steps:
            return self.folder.path / "baseline.onnx"
        return self.folder.step(len(self.recipe.steps), self.recipe.steps[-1].name).path / "model.onnx"

    def report(
        self, model: nn.Module, baseline: Figures, steps: list[Step], certificate: Certificate, started: float
    ) -> Report:
        """Read the test split for the baseline and the steps, and write report.json and report.html."""
        first, last = self.folder.path / "baseline.onnx", self.plain_file()
        baseline, original = self._tested_baseline(baseline, first)
        seen = [self._step_answers(index) for index, _ in enumerate(steps, start=1)]
        tested = [
            step.model_copy(update={"figures": self._tested(step.figures, own)})
            for step, own in zip(steps, seen, strict=True)
        ]
        final = self._tested(tested[-1].figures if tested else baseline, seen[-1] if seen else original)
        final, before = self._side_by_side(final, certificate)
        metrics = certificate.metrics | self._studied(self.folder.path if self.recipe.conditional else last, model)
        final = final.model_copy(update={"metrics": metrics, "calibration": certificate.calibration})
        baseline = baseline.model_copy(update={"latency_ms": before})
        table = layer_table(self.original, model, self.example(), first, last)
        report = Report(
            name=self.recipe.name,
            baseline=baseline,
            steps=tested,
            final=final,
            gates=gates.judge(self.recipe.gates, baseline, final),
            certificate=certificate,
            **compare_scores(original, seen[-1] if seen else original),
            layers=table.layers,
            uncounted_ops=list(table.uncounted_ops),
            epr_alpha=self.recipe.profile.epr_alpha,
            recipe=dump_recipe(self.recipe.model_copy(update={"lock": {}})),
            lock=self.folder.read_lock() or "",
            environment={"cpu": self.facts["cpu"], "python": self.facts["python"], **self.facts["packages"]},
            seconds=time.monotonic() - started,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            notes=self.notes,
        )
        self.folder.write("report.html", html.render(report))
        self.folder.write(REPORT, report.model_dump_json(indent=1) + "\n")
        return report

    def _apply(self, index: int, technique: Technique, model: nn.Module, folder: StepFolder) -> None:
        started = time.monotonic()
        torch.manual_seed(self.recipe.seed + index)
        context = self.context(technique.name, folder)
        before = zeros(float_model(model))
        model = technique.apply(model, context)
        save(model, self.original, folder.make())
        model = load(self._build, folder.path)
        context.notes.extend(lost_zeros(before, float_model(model)))
        self._export(model, folder.path / "model.onnx")
        step = Step(
            name=technique.name,
            settings=technique.model_dump(mode="json"),
            figures=self._figures(model, folder.path / "model.onnx"),
            seconds=time.monotonic() - started,
            notes=context.notes,
        )
        folder.mark_done(step.model_dump(mode="json"))

    def context(self, label: str, folder: StepFolder) -> Context:
        """Give what a technique sees, with its workspace in its step's folder."""
        bar: Progress = TerminalProgress(label) if self.progress else Silent()
        return Context(
            example_inputs=self.example(),
            train=self.data.train,
            validation=self.data.validation,
            calibration=self.data.calibration,
            teacher=self.original,
            seed=self.recipe.seed,
            workspace=folder.workspace,
            progress=bar,
        )

    def _check_steps(self, outputs: int) -> None:
        steps = self.recipe.steps
        found = [(index, problem) for index, step in enumerate(steps) for problem in step.check(self.original)]
        found += order_problems([type(step) for step in steps], TECHNIQUES)
        lines = [f"steps.{index}.{steps[index].name}: {problem}" for index, problem in sorted(found)]
        entries = self.recipe.conditional
        for index, problem in sorted(wrapping.problems(self.recipe, self.original)):
            lines.append(f"conditional.{index}.{entries[index].name}: {problem}")
        lines += [f"metrics.{index}: {problem}" for index, problem in self._unmeasurable(outputs)]
        lines += tasks.problems(self.recipe, self.data.has_numbers)
        if lines:
            raise RecipeError(lines)

    def _unmeasurable(self, outputs: int) -> Iterator[tuple[int, str]]:
        for index, asked in enumerate(self.recipe.metrics):
            if isinstance(asked, Study):
                problem, name = asked.problem(self.data.sample_shape), asked.name
            else:
                problem, name = METRICS[asked].problem(outputs), asked
            if problem is not None:
                yield index, f"{name} {problem}"

    def _studied(self, path: Path, network: nn.Module) -> dict[str, MetricValue]:
        """Measure what the recipe's studies ask of a file or artifact, and of the network behind it."""
        studies = studies_of(self.recipe.metrics)
        if not studies:
            return {}
        subject = Subject(path, AdaptedModel.load(path), self.data, lambda: network)
        return measure_all(studies, subject, strict=False)

    def _write_lock(self) -> None:
        text = dump_recipe(self.recipe.model_copy(update={"lock": self.facts}))
        before = self.folder.read_lock()
        if before is None:
            self.folder.write(LOCK, text)
            return
        locked = parse_recipe(before, source=LOCK)
        self.notes += lock.compare(locked.lock, self.facts)

    def _export(self, model: nn.Module, path: Path) -> None:
        export_onnx(
            model,
            self.example(),
            path,
            spec=self.recipe.export,
            labels=self.data.labels,
            mean=self.data.mean,
            std=self.data.std,
            recipe_sha256=self.facts["recipe_sha256"],
        )

    def _figures(self, model: nn.Module, path: Path) -> Figures:
        measured = figures(model, self.example(), path, self.folder.path / "baseline.onnx", self.recipe.profile)
        seen = score(AdaptedModel.load(path), self.data.validation)
        return measured.model_copy(update=figures_of(seen, "validation_"))

    def _take_last_file(self, model: nn.Module) -> None:
        """The file of the last step is the result; exporting it again would give the same bytes a second time."""
        if not self.recipe.steps:
            self._export(model, self.folder.path / "model.onnx")
            return
        for file in self.plain_file().parent.glob("model.onnx*"):
            self.folder.write(file.name, file.read_bytes())

    def _tested(self, measured: Figures, seen: Score) -> Figures:
        return measured.model_copy(update={**figures_of(seen), "epr": self._epr(measured, seen)})

    def _epr(self, measured: Figures, seen: Score) -> float | None:
        """EPR weighs wrong answers, and a number is never right."""
        if not isinstance(seen, PathAccuracy):
            return None
        wrong = seen.samples - sum(seen.right)
        return epr(wrong, seen.samples, measured.energy_mj, self.recipe.profile.epr_alpha)

    def _tested_baseline(self, measured: Figures, path: Path) -> tuple[Figures, Score]:
        outputs, curve = Outputs(), Curve()
        names = metrics_of(self.recipe.metrics)
        collectors: list[Collector] = [curve, outputs] if names else [curve]
        seen = score(AdaptedModel.load(path), self.data.test, *collectors)
        metrics = outputs.measure(names, strict=False) if names else {}
        metrics |= self._studied(path, self.original)
        found = {"metrics": metrics, "calibration": curve.bins()}
        return self._tested(measured, seen).model_copy(update=found), seen

    def baseline_figures(self) -> Figures:
        """Give what was measured of the model before any step."""
        return self.folder.step(0, "baseline").read_done(Figures, "figures")

    def _side_by_side(self, final: Figures, certificate: Certificate) -> tuple[Figures, dict[str, Percentiles]]:
        """Measure baseline and result anew, alternately: what was measured before is of an earlier, noisy hour."""
        if self.recipe.conditional:
            final, seen = wrapping.tested(self, final, certificate)
            return final, seen.latency_ms
        files = [self.folder.path / "baseline.onnx", self.folder.path / "model.onnx"]
        before, after = compare(files, self.recipe.profile)
        measured = {"latency_ms": after.latency_ms, "speedup": after.speedup}
        return final.model_copy(update=measured), before.latency_ms

    def _step_answers(self, index: int) -> Score:
        steps = self.recipe.steps
        if index <= len(steps):
            path = self.folder.step(index, steps[index - 1].name).path / "model.onnx"
        else:
            path = wrapping.step_folder(self, index - len(steps) - 1).path / wrapping.ARTIFACT
        return score(AdaptedModel.load(path), self.data.test)

    def example(self) -> tuple[Tensor, ...]:
        """Give the inputs of one call: two calibration samples."""
        x, _ = next(iter(self.data.calibration.with_batch_size(2)))
        # Images come with their channels last in memory, and pooling over such is captured as a dozen index operations.
        return (x.clone(memory_format=torch.contiguous_format),)

    def _build(self) -> nn.Module:
        return copy.deepcopy(self.original)
