"""The certificate of a conditional model: each answer beside that of the PyTorch network at the end of its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptkit.conditional.base import Artifact
from adaptkit.errors import DataError, ExportMismatch
from adaptkit.export.cpu import saturation_notes
from adaptkit.export.tensors import NOT_FINITE, Array
from adaptkit.export.verify import Sums
from adaptkit.metrics.curve import Curve
from adaptkit.metrics.measured import Outputs
from adaptkit.quantization.inspect import island_notes
from adaptkit.report.schema import Certificate, CertifiedPath
from adaptkit.runtime.model import AdaptedModel
from adaptkit.specs import ExportSpec

_DEFAULT = ExportSpec()


def certify_artifact(
    artifact: Artifact,
    folder: Path,
    test_batches: Iterable[tuple[Tensor, Tensor]],
    spec: ExportSpec = _DEFAULT,
    metrics: Sequence[str] = (),
) -> Certificate:
    """Run a written artifact over the test split, read once, and hold each answer against PyTorch's.

    Samples go in one at a time. Where all networks are float, it passes where the relative error of the logits of every
    batch is at most `spec.tolerance`; with an integer one among them, where file and PyTorch simulation give the same
    top-1 class for at least `spec.min_agreement` of the samples.

    Args:
        artifact: What was written.
        folder: Where.
        test_batches: Yields (normalized input, class numbers); iterated once.
        spec: Tolerances.
        metrics: Names of what else to measure of the artifact.

    Returns:
        The certificate, whether it passed or not; `require_artifact` raises where it did not.

    Raises:
        DataError: There is no test sample.
        ModelError: ONNX Runtime cannot open a file.
    """
    model = AdaptedModel.load(folder, torch.get_num_threads())
    sums, ways = Sums(), [_Way(name) for name in model.paths]
    outputs, curve = Outputs(), Curve()
    with torch.no_grad():
        for x, y in test_batches:
            ours = _add(model, artifact, x, y, sums, ways)
            curve.add(ours, y.numpy())
            if metrics:
                outputs.add(ours, y.numpy())
    samples = sum(way.taken for way in ways)
    if samples == 0:
        raise DataError("the test split is empty: the artifact cannot be verified")
    integers = any("QuantizeLinear" in {node.op_type for node in part.graph.node} for part, _ in artifact.parts)
    close = sums.agreement >= spec.min_agreement if integers else max(sums.relative, default=1) <= spec.tolerance
    compared = max(sums.samples, 1)
    return Certificate(
        passed=close and sums.finite and sums.samples > 0,
        samples=samples,
        accuracy_torch=sums.right_torch / compared,
        accuracy_onnx=sum(way.right for way in ways) / samples,
        agreement=sums.agreement,
        max_error=sums.max_error if sums.finite else NOT_FINITE,
        mean_error=sums.total_error / max(sums.values, 1) if sums.finite else NOT_FINITE,
        tolerance=1 - spec.min_agreement if integers else spec.tolerance,
        not_compared=samples - sums.samples,
        paths=[way.record(samples) for way in ways],
        notes=_notes(artifact, spec, integers, samples - sums.samples, samples),
        metrics=outputs.measure(metrics, strict=False) if metrics else {},
        calibration=curve.bins(),
    )


def require_artifact(certificate: Certificate) -> None:
    """Raise where a certificate did not pass.

    Raises:
        ExportMismatch: Names the way whose answers differ most.
    """
    if certificate.passed:
        return
    compared = [(path.agreement, path.name) for path in certificate.paths if path.agreement is not None]
    worst = f", worst on {min(compared)[1]}" if compared else ""
    raise ExportMismatch(
        f"the artifact does not answer what its PyTorch networks answer{worst}: top-1 agreement "
        f"{certificate.agreement:.2%} of {certificate.samples - certificate.not_compared} samples, largest error "
        f"{certificate.max_error:.3g}. Widen export.tolerance / export.min_agreement if this is good enough"
    )


@dataclass
class _Way:
    """Running sums of one way."""

    name: str
    taken: int = 0
    right: int = 0
    compared: int = 0
    same: int = 0
    right_of_all: int = 0
    has_network: bool = False

    def record(self, samples: int) -> CertifiedPath:
        return CertifiedPath(
            name=self.name,
            samples=self.taken,
            agreement=self.same / self.compared if self.compared else None,
            accuracy=self.right / self.taken if self.taken else None,
            accuracy_of_all=self.right_of_all / samples if self.has_network else None,
        )


def _add(model: AdaptedModel, artifact: Artifact, x: Tensor, y: Tensor, sums: Sums, ways: list[_Way]) -> Array:
    """Count one batch, and give the artifact's answers."""
    given, target = model.expected_input(x.numpy()), y.numpy()
    results = [model(given[i : i + 1]) for i in range(len(target))]
    ours, taken = (np.concatenate(parts) for parts in zip(*((each.logits, each.path) for each in results), strict=True))
    theirs: Array = np.full_like(ours, np.nan)
    compared = np.zeros(len(target), bool)
    for number, (way, answer) in enumerate(zip(ways, artifact.answers(x), strict=True)):
        mine = taken == number
        way.taken += int(mine.sum())
        way.right += int((ours[mine].argmax(1) == target[mine]).sum())
        if answer is None:
            continue
        logits = answer.numpy()
        way.has_network = True
        way.compared += int(mine.sum())
        way.same += int((ours[mine].argmax(1) == logits[mine].argmax(1)).sum())
        way.right_of_all += int((logits.argmax(1) == target).sum())
        theirs[mine], compared = logits[mine], compared | mine
    if compared.any():
        sums.add(ours[compared], theirs[compared], target[compared])
    return ours


def _notes(artifact: Artifact, spec: ExportSpec, integers: bool, left_out: int, samples: int) -> list[str]:
    notes = [f"{left_out} of {samples} samples took a way without a network of its own, and were not compared"]
    found = notes if left_out else []
    if not integers:
        return found
    found.append(f"judged by top-1 agreement with the PyTorch simulation, at least {spec.min_agreement:.1%}")
    where: dict[str, list[int]] = {}
    for number, (part, _) in enumerate(artifact.parts):
        for note in (*saturation_notes(part), *island_notes(part)):
            where.setdefault(note, []).append(number)
    for note, numbers in where.items():
        everywhere = len(numbers) == len(artifact.parts)
        found.append(note if everywhere else f"network {', '.join(map(str, numbers))}: {note}")
    return found
