"""What a report holds; `report.json` is this, written by pydantic. Nothing in here measures."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
LATENCY_LEVELS = (1, *range(5, 100, 5), 99)
"""Percent of the calls: where `Percentiles.quantiles` are."""


class _Record(BaseModel):
    # JSON has no infinity: as strings they are valid JSON and are read back as numbers.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Percentiles(_Record):
    """Latency in milliseconds per call (not per sample).

    mean is there where calls differ by more than chance: for conditional models, and what is measured beside them, on
    real samples.
    """

    p50: float
    p90: float
    p99: float
    mean: float | None = None
    calls: int | None = None
    """How many were timed; a p99 of fewer than 1,000 is rough."""
    quantiles: list[float] = []
    """At `LATENCY_LEVELS`: how the calls are spread."""


class Ratio(_Record):
    """Baseline latency over this file's latency, measured alternately: median and quartiles over the pairs.

    Of a conditional model the median is the ratio of the means, and the quartiles are over blocks of real samples.
    """

    median: float
    low: float
    high: float


class Bin(_Record):
    """Samples whose highest probability is above `low` and at most `high`: a point of the calibration curve."""

    low: float
    high: float
    samples: int
    confidence: float | None
    """Mean of their highest probabilities."""
    accuracy: float | None


class MetricValue(_Record):
    """A metric over some samples, and where that of all possible samples is: a two-sided 95 % confidence interval.

    value is None where the metric is not defined on these samples, for the reason in `problem`. low or high is None
    where there is no bound.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """How it was found, or why there is none."""
    samples: int
    higher_is_better: bool
    problem: str | None = None
    bins: list[Bin] = []
    """The calibration curve, of the calibration error."""


class PathFigures(_Record):
    """One way through a conditional model, on real samples; None where no sample took it or nothing is known."""

    name: str
    share: float
    latency_ms: Percentiles | None = None
    """Until the answer of a sample, at the first latency setting."""
    accuracy: float | None = None
    """Of the samples that took it."""
    accuracy_of_all: float | None = None
    """If every sample took it."""


class Paths(_Record):
    """The ways through a conditional model, and the model it was put around, on the same samples."""

    samples: int
    ways: list[PathFigures]
    slowest: str | None = None
    """The way with the highest p99."""
    weight_bytes: float | None = None
    """Of the networks that run for a sample, as expected from the validation samples."""
    inner_latency_ms: dict[str, Percentiles] = {}
    inner_speedup: dict[str, Ratio] = {}
    """Mean latency of the model before it was wrapped, over that of this one."""


class Figures(_Record):
    """What was measured of one model: the baseline, the model after a step, or the final file.

    accuracy is over the test split and read at the end of the run; validation_accuracy is what decisions see. Where
    targets are numbers, both are None and r2 stands in their place. metrics are those that the recipe names, over the
    test split, of the baseline and the final file.
    latency_ms and speedup have keys such as "t1_b64": one thread, batch 64.
    macs is multiply-accumulate operations for one sample; energy_mj is millijoules for one sample. Both are expected
    values for a conditional model.
    """

    accuracy: float | None = None
    validation_accuracy: float | None = None
    r2: float | None = None
    """R², the share of the variance of the targets that is explained."""
    validation_r2: float | None = None
    metrics: dict[str, MetricValue] = {}
    calibration: list[Bin] = []
    """How sure it was and how often right, over the test split; of the baseline and the final file."""
    parameters: int
    macs: int
    bytes: int
    latency_ms: dict[str, Percentiles]
    speedup: dict[str, Ratio]
    peak_memory_bytes: int | None = None
    """Resident, of a fresh process that does nothing but run the file."""
    peak_activation_bytes: int | None = None
    """By liveness analysis of the graph, at the same batch size."""
    energy_mj: float | None = None
    energy_method: Literal["rapl", "nvml", "estimate"] = "estimate"
    epr: float | None = None
    paths: Paths | None = None

    @property
    def score(self) -> float | None:
        """Accuracy or R², over the test split."""
        return self.r2 if self.accuracy is None else self.accuracy

    @property
    def validation_score(self) -> float | None:
        """Accuracy or R², over the validation split."""
        return self.validation_r2 if self.validation_accuracy is None else self.validation_accuracy

    @property
    def score_name(self) -> str:
        """Which of the two it is."""
        return "accuracy" if self.r2 is None and self.validation_r2 is None else "R²"

    def _repr_html_(self) -> str:
        from adaptkit.report.notebook import figures_html

        return figures_html(self)


class Bandwidth(_Record):
    """How fast bytes move where a call touches so many of them: caches are faster than memory."""

    bytes: int
    gb_per_s: float


class Machine(_Record):
    """What ONNX Runtime reaches on this machine, measured: the roofs that layers are held against.

    FLOPs are two a MAC. start_us is what a kernel takes that has nothing to do.
    """

    threads: int
    gflops: float
    int8_gops: float
    bandwidths: list[Bandwidth]
    start_us: float


class LayerFigures(_Record):
    """One layer of a file as ONNX Runtime ran it: its kernels, fused as they were, under the name of their module.

    macs is for one sample; bytes is read and written in a call: activations in and out, and the weights. time_us is
    None where no kernel was found under the layer's name: it was fused into another one.
    """

    name: str
    kind: str
    """Types of its kernels, the slowest first."""
    parameters: int
    macs: int
    bytes: int
    time_us: float | None = None
    share: float | None = None
    """Of the time of all kernels."""
    gflops: float | None = None
    intensity: float | None = None
    """FLOPs for a byte."""
    bound: Literal["compute", "memory"] | None = None
    """Which roof is the lower one for it."""
    of_roof: float | None = None
    """Share of the roof that it reaches; above 1 where it works in a faster cache than its bytes say."""
    reason: str = ""
    """Why it is slow; empty where it is not."""


class Network(_Record):
    """One ONNX file of a model, layer by layer.

    call_us is the median of whole calls while profiled, of which kernels_us is spent in kernels.
    """

    file: str
    batch_size: int
    call_us: float
    kernels_us: float
    layers: list[LayerFigures]
    uncounted_ops: list[str] = []


class Profile(Figures):
    """What one model costs, as a whole and, where that was asked for, layer by layer."""

    model: str
    machine: Machine | None = None
    networks: list[Network] = []

    def _repr_html_(self) -> str:
        from adaptkit.report.notebook import profile_html

        return profile_html(self)


class PairedAccuracy(_Record):
    """The accuracy of one model minus that of another, on the same samples."""

    difference: float
    low: float | None
    high: float | None
    """95 % interval of the difference, by a paired bootstrap; None where the two never differ."""
    lost: int
    """Samples that only the other one gets right."""
    gained: int
    """Samples that only this one gets right."""
    p_value: float
    """McNemar's exact test: how likely a difference so large is where both are right equally often."""


class Contender(_Record):
    """One artifact in a comparison; the first one is what the others are held against."""

    label: str
    file: str
    parameters: int
    bytes: int
    latency_ms: dict[str, Percentiles]
    speedup: dict[str, Ratio]
    """Time of the first one over that of this one, measured alternately."""
    accuracy: float | None = None
    against_first: PairedAccuracy | None = None
    metrics: dict[str, MetricValue] = {}
    """Those that were asked for."""
    metrics_against_first: dict[str, MetricValue] = {}
    """The same minus those of the first one, on the same samples."""
    energy_mj: float | None = None
    """For one sample; None for a conditional model, whose energy depends on the ways that samples take."""
    paths: Paths | None = None

    @property
    def score(self) -> float | None:
        """Accuracy, or R² where a model gives numbers."""
        numbers = self.metrics.get("r2")
        return numbers.value if self.accuracy is None and numbers is not None else self.accuracy

    @property
    def score_name(self) -> str:
        """Which of the two it is."""
        return "R²" if self.accuracy is None and "r2" in self.metrics else "accuracy"


class SideBySide(_Record):
    """Any number of artifacts, measured alternately on the same samples, and which is better than which."""

    contenders: list[Contender]
    energy_method: Literal["rapl", "nvml", "estimate"] | None = None
    verdict: str = ""

    def _repr_html_(self) -> str:
        from adaptkit.report.notebook import side_by_side_html

        return side_by_side_html(self)


class Step(_Record):
    """One step of the recipe, or entry of its `conditional`: the model after it, and in `notes` what it has to say."""

    name: str
    settings: dict[str, Any]
    figures: Figures
    seconds: float
    notes: list[str] = []


class Layer(_Record):
    """One layer before and after; after-values are None where the layer was removed."""

    name: str
    kind: str
    shape_before: list[int]
    shape_after: list[int] | None
    parameters_before: int
    parameters_after: int | None
    macs_before: int
    macs_after: int | None
    latency_us_before: float | None = None
    latency_us_after: float | None = None
    note: str = ""


class Gate(_Record):
    """One gate: what was allowed, what was found."""

    name: str
    limit: float
    found: float
    passed: bool


class CertifiedPath(_Record):
    """One way through a conditional model, over the test samples that took it; None where there are none.

    agreement is None, too, where the way has no network of its own, as the hits of a cache.
    """

    name: str
    samples: int
    agreement: float | None = None
    accuracy: float | None = None
    accuracy_of_all: float | None = None
    """Of the PyTorch network at its end, over all test samples."""


class Certificate(_Record):
    """How the ONNX file compares with the PyTorch model, over the whole test split; also `certificate.json`.

    A conditional model gets one sample at a time, and each answer is held against the PyTorch network at the end of the
    way that the sample took.
    """

    passed: bool
    samples: int
    accuracy_torch: float | None = None
    accuracy_onnx: float | None = None
    r2_torch: float | None = None
    """Where targets are numbers, in place of the accuracy."""
    r2_onnx: float | None = None
    agreement: float
    """Share of the samples with the same top-1 class; of numbers, with nearly the same one."""
    max_error: float
    mean_error: float
    tolerance: float
    first_jump: str | None = None
    """The first layer whose error is far above that of the layer before it."""
    layer_errors: dict[str, float] = {}
    layer_errors_against: Literal["PyTorch", "float graph"] = "PyTorch"
    """An 8-bit file's layers are compared with the float graph: what they show is the cost, not a fault."""
    not_compared: int = 0
    """Samples that took a way without a network of its own."""
    metrics: dict[str, MetricValue] = {}
    """Of the file or artifact."""
    calibration: list[Bin] = []
    """The same of its certainty."""
    paths: list[CertifiedPath] = []
    notes: list[str] = []

    @property
    def score_torch(self) -> float | None:
        """Accuracy or R² of the PyTorch model."""
        return self.r2_torch if self.accuracy_torch is None else self.accuracy_torch

    @property
    def score_onnx(self) -> float | None:
        """Accuracy or R² of the file."""
        return self.r2_onnx if self.accuracy_onnx is None else self.accuracy_onnx

    @property
    def score_name(self) -> str:
        """Which of the two it is."""
        return "R²" if self.accuracy_onnx is None else "accuracy"

    @property
    def agreement_name(self) -> str:
        """What of two answers is compared."""
        return "agreement" if self.accuracy_onnx is None else "top-1 agreement"


class Report(_Record):
    """The whole report of one run."""

    version: int = SCHEMA_VERSION
    name: str
    baseline: Figures
    steps: list[Step]
    final: Figures
    gates: list[Gate]
    certificate: Certificate
    against_baseline: PairedAccuracy | None = None
    """The accuracy of the final file against that of the baseline, over the same test samples."""
    r2_against_baseline: MetricValue | None = None
    """The same of R², where targets are numbers."""
    layers: list[Layer]
    uncounted_ops: list[str] = []
    epr_alpha: float = 1.0
    recipe: str
    lock: str
    environment: dict[str, str]
    seconds: float
    created: str
    notes: list[str] = []

    def _repr_html_(self) -> str:
        from adaptkit.report.notebook import report_html

        return report_html(self)
