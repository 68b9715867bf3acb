"""What a profile says, before it is text or HTML."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.report.comparison import setting_label, speedup_text
from adaptkit.report.numbers import DASH, digits, si
from adaptkit.report.schema import Figures, LayerFigures, Machine, Network, Percentiles

LAYER_HEADINGS = (
    "layer",
    "kernels",
    "parameters",
    "MACs",
    "bytes",
    "time",
    "share",
    "GFLOP/s",
    "FLOP/B",
    "of roof",
    "why slow",
)


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """List the figures of one model, each with what it is of."""
    rows = [
        ("parameters", si(figures.parameters)),
        ("MACs per sample" + (" on the longest way" if figures.paths is not None else ""), si(figures.macs)),
        ("file", si(figures.bytes, "B")),
    ]
    for key, latency in figures.latency_ms.items():
        rows.append((f"latency, {setting_label(key)}", _latency(latency)))
        if latency.mean is not None and key in figures.speedup:
            rows.append(("  against the baseline", speedup_text(figures.speedup[key])))
    if figures.peak_activation_bytes is not None:
        rows.append(("peak activations", si(figures.peak_activation_bytes, "B")))
    if figures.peak_memory_bytes is not None:
        rows.append(("peak memory", si(figures.peak_memory_bytes, "B")))
    if figures.energy_mj is not None:
        rows.append((f"energy per sample ({figures.energy_method})", f"{digits(figures.energy_mj)} mJ"))
    return rows


def _latency(latency: Percentiles) -> str:
    if latency.mean is None:
        return f"{digits(latency.p50)} ms (p90 {digits(latency.p90)} ms)"
    return f"mean {digits(latency.mean)} ms, p50 {digits(latency.p50)} ms (p99 {digits(latency.p99)} ms)"


def layer_row(layer: LayerFigures) -> tuple[str, ...]:
    """Write one layer, under `LAYER_HEADINGS`."""
    return (
        layer.name,
        _few(layer.kind),
        si(layer.parameters),
        si(layer.macs) if layer.macs else DASH,
        si(layer.bytes, "B"),
        DASH if layer.time_us is None else f"{digits(layer.time_us)} µs",
        DASH if layer.share is None else f"{100 * layer.share:.1f} %",
        digits(layer.gflops) if layer.gflops else DASH,
        digits(layer.intensity) if layer.intensity else DASH,
        DASH if layer.of_roof is None else f"{100 * layer.of_roof:.0f} % {layer.bound}",
        layer.reason,
    )


def _few(kinds: str, most: int = 2) -> str:
    """Name the slowest kernels of a layer that has many."""
    first = kinds.split(", ")
    return kinds if len(first) <= most + 1 else f"{', '.join(first[:most])} and {len(first) - most} more"


def network_summary(network: Network) -> str:
    """Say how the time of a call divides, and what was not counted."""
    rest = network.call_us - network.kernels_us
    said = (
        f"{network.file}, batch {network.batch_size}: {digits(network.kernels_us / 1000)} ms in kernels, "
        f"{digits(max(rest, 0) / 1000)} ms between them (while profiled)"
    )
    if network.uncounted_ops:
        said += f"; operations not counted: {', '.join(network.uncounted_ops)}"
    return said


def machine_summary(machine: Machine) -> str:
    """Say what the machine was measured to reach."""
    caches = "; ".join(f"{digits(one.gb_per_s)} GB/s over {si(one.bytes, 'B')}" for one in machine.bandwidths)
    threads = f"{machine.threads} thread{'' if machine.threads == 1 else 's'}"
    return (
        f"this machine, measured with {threads}: {digits(machine.gflops)} GFLOP/s in float, "
        f"{digits(machine.int8_gops)} Gop/s in 8 bits; {caches}; {digits(machine.start_us)} µs to start a kernel"
    )


def most_expensive(networks: Sequence[Network], most: int = 3) -> str:
    """Name the layers that take the most of the time; empty where nothing was measured.

    Example:
        >>> layers = [LayerFigures(name=n, kind="Conv", parameters=1, macs=1, bytes=1, time_us=t) for n, t in
        ...           (("a", 1.0), ("b", 7.0), ("c", 2.0))]
        >>> most_expensive([Network(file="m", batch_size=1, call_us=11, kernels_us=10, layers=layers)], 2)
        'most time goes to b (70 %), c (20 %)'
    """
    whole = sum(network.kernels_us for network in networks)
    layers = [layer for network in networks for layer in network.layers if layer.time_us]
    first = sorted(layers, key=lambda layer: -(layer.time_us or 0))[:most]
    shares = [f"{layer.name} ({100 * (layer.time_us or 0) / whole:.0f} %)" for layer in first]
    return f"most time goes to {', '.join(shares)}" if shares else ""
