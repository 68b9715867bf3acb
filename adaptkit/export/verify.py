"""The certificate: does the ONNX file compute what the PyTorch model computes, and where not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, ExportMismatch
from adaptkit.export.cpu import saturation_notes
from adaptkit.export.files import read_model
from adaptkit.export.onnx import ExportsItself, to_onnx
from adaptkit.export.tensors import (
    NOT_FINITE,
    Array,
    errors_against_graph,
    errors_against_torch,
    first_jump,
    relative_error,
    samples_that_fit,
)
from adaptkit.metrics.curve import Curve
from adaptkit.metrics.file import Collector
from adaptkit.metrics.measured import Outputs
from adaptkit.metrics.regression import r2
from adaptkit.modes import evaluating
from adaptkit.quantization.inspect import island_notes
from adaptkit.report.numbers import percent
from adaptkit.report.schema import Certificate
from adaptkit.runtime.model import AdaptedModel
from adaptkit.specs import ExportSpec

_DEFAULT = ExportSpec()
_FACTOR_FLOAT, _FACTOR_INTEGER = 8.0, 3.0
"""A jump is an error this many times that of every layer before; integers lose a little at every layer."""
_FLOOR_INTEGER = 0.1
"""Integers are suspect from a relative error of a tenth (20 dB) on."""
_NEAR = 0.05
"""Of the standard deviation of PyTorch's numbers: two steps of eight bits over a range of six deviations."""


def certify(
    model: nn.Module,
    path: Path,
    test_batches: Iterable[tuple[Tensor, Tensor]],
    *,
    spec: ExportSpec = _DEFAULT,
    example_inputs: tuple[Tensor, ...],
    metrics: Sequence[str] = (),
) -> Certificate:
    """Run the ONNX file and the PyTorch model side by side over the test split, read once.

    A float file passes where the relative error (root mean square of the difference over that of PyTorch's values) of
    the logits and of every layer is at most `spec.tolerance`. A quantized model passes where file and PyTorch
    simulation give the same top-1 class for at least `spec.min_agreement` of the samples; its layer errors are those
    against the float graph, so they show where quantization costs most. Of a model that gives numbers, two agree that
    differ by at most a twentieth of the standard deviation of PyTorch's.

    Args:
        model: What was exported.
        path: The file.
        test_batches: Yields (normalized input, targets); iterated once.
        spec: Tolerances and operator set.
        example_inputs: Inputs of one call, batch first.
        metrics: Names of what else to measure of the file.

    Returns:
        The certificate, whether it passed or not; `require` raises where it did not.

    Raises:
        DataError: There is no test sample.
        ModelError: ONNX Runtime cannot open the file.
    """
    with evaluating(model), torch.no_grad():
        outputs, curve = Outputs(), Curve()
        collectors: list[Collector] = [curve, outputs] if metrics else [curve]
        file = AdaptedModel.load(path, torch.get_num_threads())
        sums, probe = _compare_outputs(model, file, test_batches, collectors)
        quantized = isinstance(model, ExportsItself)
        errors = _layer_errors(model, path, probe, spec, example_inputs)
    factor, floor = (_FACTOR_INTEGER, _FLOOR_INTEGER) if quantized else (_FACTOR_FLOAT, spec.tolerance)
    passed = sums.agreement >= spec.min_agreement if quantized else _all_within(spec.tolerance, errors, sums)
    jump = first_jump(errors, floor, factor)
    if not passed and jump is None and errors:
        jump = max(errors, key=lambda name: errors[name])
    return Certificate(
        passed=passed and sums.finite,
        samples=sums.samples,
        **sums.scores(),
        agreement=sums.agreement,
        max_error=sums.max_error if sums.finite else NOT_FINITE,
        mean_error=sums.total_error / sums.values if sums.finite else NOT_FINITE,
        tolerance=spec.tolerance if not quantized else 1 - spec.min_agreement,
        first_jump=jump,
        layer_errors=errors,
        layer_errors_against="float graph" if quantized else "PyTorch",
        notes=_notes(quantized, sums, spec, path),
        metrics=outputs.measure(metrics, strict=False) if metrics else {},
        calibration=curve.bins(),
    )


def require(certificate: Certificate) -> None:
    """Raise where a certificate did not pass.

    Raises:
        ExportMismatch: Names the layer where the error starts.
    """
    if certificate.passed:
        return
    where = certificate.first_jump
    layer = f", first at layer {where} (relative error {certificate.layer_errors[where]:.3g})" if where else ""
    scores = f"{percent(certificate.score_onnx)} against {percent(certificate.score_torch)}"
    raise ExportMismatch(
        f"the ONNX file does not compute what the PyTorch model computes{layer}: {certificate.agreement_name} "
        f"{certificate.agreement:.2%} of {certificate.samples} samples, {certificate.score_name} {scores}. Leave that "
        "layer out of the last step with `ignore`, or widen export.tolerance / export.min_agreement if this is good "
        "enough"
    )


class Scores(TypedDict, total=False):
    """How well file and PyTorch model do their task, as a certificate has it."""

    accuracy_torch: float
    accuracy_onnx: float
    r2_torch: float
    r2_onnx: float


@dataclass
class Sums:
    """Running sums over the test split; `error` is |file - PyTorch| of a logit, or of the number a model gives."""

    samples: int = 0
    values: int = 0
    right_torch: int = 0
    right_file: int = 0
    same: int = 0
    max_error: float = 0.0
    total_error: float = 0.0
    relative: list[float] = field(default_factory=list)
    finite: bool = True
    numbers: list[tuple[Array, Array, Array]] = field(default_factory=list)
    """Of the file, of PyTorch, and the targets, where a model gives numbers."""

    @property
    def agreement(self) -> float:
        """Share of samples with the same top-1 class, or nearly the same number; 0 where nothing was compared."""
        if not self.samples:
            return 0.0
        if not self.numbers:
            return self.same / self.samples
        ours, theirs, _ = self._together()
        return float((np.abs(ours - theirs) <= _NEAR * theirs.std()).mean())

    def scores(self) -> Scores:
        """Give accuracy, or R² where a model gives numbers, of PyTorch and of the file."""
        if not self.numbers:
            return {"accuracy_torch": self.right_torch / self.samples, "accuracy_onnx": self.right_file / self.samples}
        ours, theirs, target = self._together()
        if not self.finite or target.min() == target.max():
            return {}
        return {"r2_torch": r2(theirs, target), "r2_onnx": r2(ours, target)}

    def add(self, ours: Array, theirs: Array, target: Array) -> None:
        """Add the logits of the file and of PyTorch for some samples."""
        error = np.abs(ours.astype(np.float64) - theirs)
        self.finite = self.finite and bool(np.isfinite(error).all())
        self.samples += len(target)
        self.values += error.size
        self.max_error = max(self.max_error, float(error.max()))
        self.total_error += float(error.sum())
        self.relative.append(relative_error(ours, theirs))
        if np.issubdtype(target.dtype, np.floating):
            self.numbers.append((ours.reshape(-1), theirs.reshape(-1), target.reshape(-1)))
            return
        self.right_torch += int((theirs.argmax(1) == target).sum())
        self.right_file += int((ours.argmax(1) == target).sum())
        self.same += int((ours.argmax(1) == theirs.argmax(1)).sum())

    def _together(self) -> tuple[Array, Array, Array]:
        ours, theirs, target = (np.concatenate(parts) for parts in zip(*self.numbers, strict=True))
        return ours, theirs, target


def _compare_outputs(
    model: nn.Module,
    file: AdaptedModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    collectors: Sequence[Collector],
) -> tuple[Sums, Tensor]:
    sums = Sums()
    probe: Tensor | None = None
    for x, y in batches:
        probe = x if probe is None else probe
        ours = file.predict(file.expected_input(x.numpy()))
        sums.add(ours, _first_tensor(model(x)).numpy(), y.numpy())
        for collector in collectors:
            collector.add(ours, y.numpy())
    if probe is None or sums.samples == 0:
        raise DataError("the test split is empty: the ONNX file cannot be verified")
    return sums, probe


def _layer_errors(
    model: nn.Module, path: Path, probe: Tensor, spec: ExportSpec, example_inputs: tuple[Tensor, ...]
) -> dict[str, float]:
    probe = probe[: samples_that_fit(model, (probe,))]
    file = AdaptedModel.load(path)
    proto = read_model(path)
    name = proto.graph.input[0].name
    feeds = {name: file.expected_input(probe.numpy())}
    if not isinstance(model, ExportsItself):
        return errors_against_torch(proto, feeds, model, (probe,))
    reference = without_markers(to_onnx(model.export_model(), example_inputs, spec.opset))
    return errors_against_graph(proto, feeds, reference, {name: probe.numpy()})


def without_markers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn the nodes that `finish_onnx` replaces, all of a domain of their own, into Identity: the float graph."""
    for node in proto.graph.node:
        if node.domain:
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name))
    return proto


def _all_within(tolerance: float, errors: dict[str, float], sums: Sums) -> bool:
    return all(error <= tolerance for error in (*errors.values(), *sums.relative))


def _notes(quantized: bool, sums: Sums, spec: ExportSpec, path: Path) -> list[str]:
    if quantized:
        kind = "numbers within a twentieth of their standard deviation of" if sums.numbers else "top-1 agreement with"
        judged = f"judged by {kind} the PyTorch simulation, at least {spec.min_agreement:.1%}"
        against = "layer errors are against the float graph: they show what quantization costs"
        proto = read_model(path)
        notes = [f"{judged}; {against}", *saturation_notes(proto), *island_notes(proto)]
    else:
        notes = []
    return notes if sums.finite else [*notes, "NaN or infinity among the outputs"]


def _first_tensor(output: object) -> Tensor:
    while not isinstance(output, Tensor):
        values = list(output.values()) if isinstance(output, dict) else list(output)  # type: ignore[call-overload]
        output = values[0]
    return output
