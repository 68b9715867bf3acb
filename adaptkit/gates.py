"""Gates: what a result must reach, and whether it did."""

from collections.abc import Iterator

from adaptkit.report.schema import Figures, Gate
from adaptkit.specs import GateSpec


def judge(spec: GateSpec, baseline: Figures, final: Figures) -> list[Gate]:
    """Hold the final figures against every gate that is set.

    `max_accuracy_drop` is baseline accuracy minus final accuracy on the test split, as a share, and `max_r2_drop` the
    same of R²; `min_speedup` and `max_latency_ms` look at the first thread count and batch size of the profile. Of a
    conditional model they judge means over real samples.

    Args:
        spec: The gates of the recipe.
        baseline: Figures of the model before any step, with its test accuracy.
        final: Figures of the exported file.

    Returns:
        One Gate for every limit that is set, in the order of the specification.
    """
    return list(_judged(spec, baseline, final))


def _judged(spec: GateSpec, baseline: Figures, final: Figures) -> Iterator[Gate]:
    first = next(iter(final.latency_ms))
    for name, limit in (("max_accuracy_drop", spec.max_accuracy_drop), ("max_r2_drop", spec.max_r2_drop)):
        if limit is not None:
            # Rounded, so that 0.9 - 0.89 is not more than 0.01.
            yield _at_most(name, limit, round((baseline.score or 0.0) - (final.score or 0.0), 9))
    if spec.min_speedup is not None:
        found = final.speedup[first].median
        yield Gate(name="min_speedup", limit=spec.min_speedup, found=found, passed=found >= spec.min_speedup)
    if spec.max_bytes is not None:
        yield _at_most("max_bytes", spec.max_bytes, final.bytes)
    if spec.max_latency_ms is not None:
        latency = final.latency_ms[first]
        yield _at_most("max_latency_ms", spec.max_latency_ms, latency.p50 if latency.mean is None else latency.mean)


def _at_most(name: str, limit: float, found: float) -> Gate:
    return Gate(name=name, limit=limit, found=found, passed=found <= limit)


def failures(gates: list[Gate]) -> str | None:
    """Say in one sentence which gates failed, or None where all passed.

    Example:
        >>> failures([Gate(name="max_bytes", limit=100, found=120, passed=False)])
        'gate failed: max_bytes is 120, allowed is at most 100'
    """
    failed = [
        f"{gate.name} is {gate.found:.4g}, allowed is at {'least' if gate.name.startswith('min_') else 'most'} "
        f"{gate.limit:.4g}"
        for gate in gates
        if not gate.passed
    ]
    return f"gate failed: {'; '.join(failed)}" if failed else None
