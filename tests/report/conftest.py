"""A made-up report with the proportions of a real one. Every number in here is fixture data, nothing was measured."""

import pytest

from adaptkit.report.schema import (
    LATENCY_LEVELS,
    Bin,
    Certificate,
    Figures,
    Gate,
    Layer,
    Percentiles,
    Ratio,
    Report,
    Step,
)

SETTINGS = {"t1_b1": 2.31, "t1_b64": 131.0}


def figures(accuracy, parameters, macs, size, speed, **more):
    """Figures of a model `speed` times faster than the baseline."""
    latency = {
        key: Percentiles(p50=ms / speed, p90=1.04 * ms / speed, p99=1.2 * ms / speed) for key, ms in SETTINGS.items()
    }
    speedup = {key: Ratio(median=speed, low=0.98 * speed, high=1.03 * speed) for key in SETTINGS}
    settings = {
        "accuracy": accuracy,
        "validation_accuracy": None if accuracy is None else accuracy + 0.004,
        "peak_memory_bytes": round(6.1e7 + 3 * size),
        "energy_mj": 34.6 / speed,
        "epr": None if accuracy is None else (1 - accuracy) * 34.6 / speed,
    }
    return Figures(
        parameters=parameters, macs=macs, bytes=size, latency_ms=latency, speedup=speedup, **(settings | more)
    )


@pytest.fixture
def pictured(report) -> Report:
    """The same with everything that can be drawn."""
    for figures, mean in ((report.baseline, 0.8), (report.final, 0.7)):
        figures.latency_ms = {key: spread(latency) for key, latency in figures.latency_ms.items()}
        figures.calibration = [
            Bin(low=0, high=0.5, samples=0, confidence=None, accuracy=None),
            Bin(low=0.5, high=0.9, samples=2500, confidence=mean, accuracy=0.75),
            Bin(low=0.9, high=1, samples=7500, confidence=0.97, accuracy=0.94),
        ]
    return report


def spread(latency: Percentiles) -> Percentiles:
    """The same with the times between the percentiles."""
    times = [latency.p50 * (0.9 + 0.002 * level) for level in LATENCY_LEVELS[:-1]] + [latency.p99]
    return latency.model_copy(update={"calls": 200, "quantiles": times})


def layers():
    """The convolutions of a ResNet-56: a third of the second stage is removed, the third is narrower."""
    rows = [layer("conv1", 3, 16, 16, 1024, 0.8)]
    for stage, (width, pixels) in enumerate([(16, 1024), (32, 256), (64, 64)], 1):
        for block in range(9):
            for conv in (1, 2):
                name = f"layer{stage}.{block}.conv{conv}"
                removed = stage == 2 and block in (3, 5, 6)
                after = None if removed else round(width * (0.75 if stage == 3 and conv == 1 else 1))
                rows.append(layer(name, width, width, after, pixels, 0.5 if stage < 3 else 0.8))
    linear = {"parameters_before": 650, "parameters_after": 650, "macs_before": 640, "macs_after": 640}
    rows.append(Layer(name="fc", kind="Linear", shape_before=[10, 64], shape_after=[10, 64], **linear))
    return rows


def layer(name, width_in, width, after, pixels, time):
    """One 3 × 3 convolution; `after` channels are left, None where it is removed."""
    size, was = width_in * width * 9, 0.02 * width_in * width * pixels / 1024 * 9
    kept = None if after is None else after * width_in * 9
    return Layer(
        name=name,
        kind="Conv2d",
        shape_before=[width, width_in, 3, 3],
        shape_after=None if after is None else [after, width_in, 3, 3],
        parameters_before=size,
        parameters_after=kept,
        macs_before=size * pixels,
        macs_after=None if kept is None else kept * pixels,
        latency_us_before=was,
        latency_us_after=None if after is None else was * time,
        note="block removed" if after is None else "",
    )


@pytest.fixture
def report() -> Report:
    """A report of three steps."""
    steps = [
        Step(
            name="prune.depth",
            settings={"latency": 0.6, "targets": ["*"]},
            figures=figures(0.8412, 742_000, 92_300_000, 2_990_000, 1.47),
            seconds=41.3,
            notes=["Removed 8 of 27 blocks: layer2.3, layer2.5, layer2.6 and five more of stage 3."],
        ),
        Step(
            name="distill.logits",
            settings={"epochs": 2, "temperature": 4.0, "alpha": 0.9},
            figures=figures(0.8903, 742_000, 92_300_000, 2_990_000, 1.48),
            seconds=655.0,
        ),
        Step(
            name="quantize.static",
            settings={"calibration": 512, "ranges": "mse"},
            figures=figures(0.8894, 742_000, 92_300_000, 809_000, 3.63),
            seconds=22.8,
            notes=["54 of 54 convolutions run in int8; no float operation is left between them."],
        ),
    ]
    return Report(
        name="resnet56-cifar10-edge",
        baseline=figures(0.8971, 855_770, 125_747_840, 3_478_000, 1.0),
        steps=steps,
        final=figures(0.8894, 742_000, 92_300_000, 809_000, 3.63),
        gates=[
            Gate(name="max_accuracy_drop", limit=0.01, found=0.0077, passed=True),
            Gate(name="min_speedup", limit=3.5, found=3.63, passed=True),
        ],
        certificate=certificate(),
        layers=layers(),
        uncounted_ops=["aten::constant_pad_nd"],
        recipe="version: 1\nname: resnet56-cifar10-edge\nsteps:\n  - prune.depth: {latency: 0.6}\n",
        lock="version: 1\nseed: 0\nweights_sha256: 1f6a...\n",
        environment={"cpu": "Fixture CPU, 2 cores, AVX2", "onnxruntime": "1.32.0", "torch": "2.14.1"},
        seconds=812.4,
        created="2026-11-23T12:00:00Z",
        notes=["The energy is an estimate: this machine exposes no counter."],
    )


def certificate() -> Certificate:
    """A certificate whose error grows slowly and jumps once."""
    errors = {row.name: 2e-7 * 1.09**i * (40 if i > 30 else 1) for i, row in enumerate(layers())}
    return Certificate(
        passed=True,
        samples=10_000,
        accuracy_torch=0.8897,
        accuracy_onnx=0.8894,
        agreement=0.9968,
        max_error=0.412,
        mean_error=0.0183,
        tolerance=0.05,
        first_jump="layer2.6.conv1",
        layer_errors=errors,
        notes=["8-bit products can saturate on a CPU without VNNI: 3 layers come within 5 % of it."],
    )
