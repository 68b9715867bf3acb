"""The report as text for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from adaptkit.report.comparison import (
    METRIC_HEADINGS,
    PATH_HEADINGS,
    baseline_text,
    comparison,
    gate_values,
    metric_rows,
    path_rows,
    path_summary,
    setting_label,
    slow_to_gain,
    speedup_text,
    step_accuracies,
)
from adaptkit.report.numbers import DASH, digits, duration, percent, points, ratio_of, times
from adaptkit.report.schema import Certificate, Figures, Report, Step
from adaptkit.report.verdict import verdict


def render(report: Report, folder: Path | None = None, width: int | None = None) -> str:
    """Write the whole report as plain text.

    Args:
        report: What to show.
        folder: The run folder, named at the end where it is given.
        width: Columns of the terminal; asked from it where None.
    """
    columns = width or shutil.get_terminal_size().columns
    parts = [
        _wrap(f"{report.name}: {verdict(report)}", columns, ""),
        _figures(report, columns),
        _paired(report, columns),
        _metrics(report),
        _paths(report, columns),
        _steps(report),
        _behind(report, columns),
        _gates(report),
        _certificate(report.certificate, columns),
        _notes(report, columns),
        _files(report, folder),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_step(step: Step, baseline: Figures) -> str:
    """Write what one step brought against the baseline: MACs beside the measured latency and its spread."""
    now = step.figures
    macs = times(ratio_of(baseline.macs, now.macs), "fewer", "more")
    size = times(ratio_of(baseline.bytes, now.bytes), "smaller", "larger")
    speed = "; ".join(f"{speedup_text(ratio)} at {setting_label(key)}" for key, ratio in now.speedup.items())
    first = [step.name, f"{macs} MACs", f"file {size}", _accuracy(baseline, now), duration(step.seconds)]
    return f"{' · '.join(part for part in first if part)}\n  measured latency: {speed or DASH}"


def _accuracy(before: Figures, now: Figures) -> str:
    kind = "R² " if now.score_name == "R²" else ""
    if now.score is not None:
        return f"test {kind}{percent(now.score)} ({points(before.score, now.score)})"
    if now.validation_score is None:
        return ""
    lost = points(before.validation_score, now.validation_score)
    return f"validation {kind}{percent(now.validation_score)} ({lost})"


def _figures(report: Report, width: int) -> str:
    rows = [("", "before", "after", "")]
    rows += [(row.label, row.before, row.after, row.change) for row in comparison(report)]
    name, before, after, change = (max(len(row[column]) for row in rows) for column in range(4))
    fits = 2 + name + 2 + before + 2 + after + 2 + change <= width
    lines = []
    for row in rows:
        line = f"  {row[0]:<{name}}  {row[1]:>{before}}  {row[2]:>{after}}"
        lines.append(f"{line}  {row[3]}".rstrip() if fits else line)
        if not fits and row[3]:
            lines.append(f"      {row[3]}")
    return "\n".join(lines)


def _paired(report: Report, width: int) -> str:
    said = baseline_text(report)
    return _wrap(said, width, "") if said else ""


def _metrics(report: Report) -> str:
    found = report.final.metrics
    if not found:
        return ""
    title = f"metrics of the result over {report.certificate.samples:,} test samples"
    rows = [(f"  {name}", *rest) for name, *rest in (METRIC_HEADINGS, *metric_rows(found))]
    return f"{title}\n{_align(rows)}"


def _steps(report: Report) -> str:
    split, accuracies = step_accuracies(report)
    first = next(iter(report.baseline.latency_ms), None)
    title = "steps, against the baseline" + (f" (speed at {setting_label(first)})" if first else "")
    rows = [("", split, "MACs", "file", "speed", "time")]
    for number, (step, accuracy) in enumerate(zip(report.steps, accuracies[1:], strict=True), 1):
        measured = step.figures.speedup.get(first or "")
        rows.append(
            (
                f"  {number} {step.name}",
                percent(accuracy),
                times(ratio_of(report.baseline.macs, step.figures.macs)),
                times(ratio_of(report.baseline.bytes, step.figures.bytes)),
                times(measured.median if measured else None),
                duration(step.seconds),
            )
        )
    return f"{title}\n{_align(rows)}" if report.steps else "no steps"


def _paths(report: Report, width: int) -> str:
    final = report.final
    if final.paths is None:
        return ""
    key = next(iter(final.latency_ms))
    title = f"ways through the model, over {final.paths.samples:,} test samples ({setting_label(key)})"
    rows = [
        (f"  {name}", *rest)
        for name, *rest in (PATH_HEADINGS, *path_rows(final.paths, final.latency_ms, final.accuracy))
    ]
    return "\n".join([title, _align(rows), *(_wrap(line, width) for line in path_summary(final.paths))])


def _behind(report: Report, width: int) -> str:
    layers = slow_to_gain(report.layers)
    if not layers:
        return ""
    return "\n".join(["less time saved than MACs, most expensive layers first", *(_wrap(x, width) for x in layers)])


def _gates(report: Report) -> str:
    rows = [("gates", "limit", "found", "")]
    rows += [(f"  {x.name}", *gate_values(x), "passed" if x.passed else "FAILED") for x in report.gates]
    return _align(rows) if report.gates else ""


def _certificate(certificate: Certificate, width: int) -> str:
    lines = [
        f"certificate: {'passed' if certificate.passed else 'FAILED'}",
        f"{certificate.agreement_name} {percent(certificate.agreement)} over {certificate.samples:,} samples; "
        f"{certificate.score_name} {percent(certificate.score_torch)} in PyTorch, "
        f"{percent(certificate.score_onnx)} in the file",
        f"error {digits(certificate.max_error)} at most, {digits(certificate.mean_error)} on average; "
        f"tolerance {digits(certificate.tolerance)}",
    ]
    if certificate.first_jump:
        lines.append(f"the error first jumps at {certificate.first_jump}")
    return "\n".join([lines[0], *(_wrap(line, width) for line in [*lines[1:], *certificate.notes])])


def _notes(report: Report, width: int) -> str:
    notes = list(report.notes)
    if report.uncounted_ops:
        notes.append(f"operations not counted: {', '.join(report.uncounted_ops)}")
    return "\n".join(["notes", *(_wrap(note, width) for note in notes)]) if notes else ""


def _files(report: Report, folder: Path | None) -> str:
    took = f"done in {duration(report.seconds)}"
    if folder is None:
        return took
    model = folder / "model.onnx" if report.final.paths is None else folder
    return f"{took}\n  report  {folder / 'report.html'}\n  model   {model}"


def _wrap(text: str, width: int, indent: str = "  ") -> str:
    after = indent + "  "
    return textwrap.fill(text, max(width, 40), initial_indent=indent, subsequent_indent=after, break_long_words=False)


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(wide) for cell, wide in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
