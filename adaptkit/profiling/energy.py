"""Energy of one inference: measured where the machine has a counter, estimated where it has none, and labelled so."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from adaptkit.profiling.graph import GraphCost, file_cost
from adaptkit.profiling.inputs import random_feeds
from adaptkit.runtime.session import open_session

POWERCAP = Path("/sys/class/powercap")

FLOAT_MAC_PJ = 4.6
"""An fp32 multiplication (3.7 pJ) and addition (0.9 pJ)."""
INTEGER_MAC_PJ = 0.23
"""An 8-bit multiplication (0.2 pJ) and addition (0.03 pJ)."""
DRAM_PJ_PER_BYTE = 160.0
"""640 pJ for a word of 32 bits."""

_MICRO_TO_MILLI = 1e-3
_PICO_TO_MILLI = 1e-9


@dataclass(frozen=True)
class Energy:
    """Energy of one sample.

    Args:
        millijoules: For one sample.
        method: "rapl" or "nvml" where a counter of the machine measured it, else "estimate".
        details: How, in a sentence.
    """

    millijoules: float
    method: Literal["rapl", "nvml", "estimate"]
    details: str


class Counter(Protocol):
    """Something that counts energy."""

    def read(self) -> float:
        """Give millijoules since some fixed moment."""


def energy_per_inference(
    path: Path, *, batch_size: int = 1, threads: int = 1, seconds: float = 1.0, powercap: Path = POWERCAP
) -> Energy:
    """Give the energy of one sample by the best method that this machine has.

    A counter (RAPL, then NVML) is read around a window of calls, and the power of the idle machine, measured just
    before, is subtracted. Without one the energy is estimated by `estimate`. Never compare values of different methods.

    Args:
        path: An ONNX file.
        batch_size: Samples in a call.
        threads: Threads within an operator.
        seconds: Length of the window, and of the idle one; counters tick about once a millisecond.
        powercap: Where Linux shows its energy counters.

    Raises:
        ModelError: The file cannot be run.
    """

    def prepare() -> Callable[[], object]:
        session = open_session(path, threads)
        feeds = random_feeds(session, batch_size, 0, path.name)
        return lambda: session.run(None, feeds)

    return energy_of_calls(prepare, batch_size, seconds, powercap) or estimate(file_cost(path))


def energy_of_calls(
    prepare: Callable[[], Callable[[], object]], samples: int = 1, seconds: float = 1.0, powercap: Path = POWERCAP
) -> Energy | None:
    """Measure the energy of one sample with a counter of this machine; None where it has none.

    Args:
        prepare: Gives what makes one call; not used where there is no counter.
        samples: In a call.
        seconds: Length of the window, and of the idle one.
        powercap: Where Linux shows its energy counters.
    """
    zones, nvml = package_zones(powercap), None
    if not zones and (nvml := find_nvml()) is None:
        return None
    work = prepare()
    work()
    millijoules, runs = net_energy(nvml or Rapl(zones), work, seconds)
    spent = millijoules / (runs * samples)
    if zones:
        return Energy(spent, "rapl", f"RAPL, {len(zones)} package zones, idle power subtracted")
    return Energy(spent, "nvml", "NVML, GPU 0, idle power subtracted")


def estimate(cost: GraphCost) -> Energy:
    """Estimate the energy of one sample from what the file computes and moves.

    E = 4.6 pJ · fp32 MACs + 0.23 pJ · int8 MACs + 160 pJ · bytes (weights once, activations of layers in and out),
    with the energies of a 45 nm process and every byte from DRAM (Horowitz 2014, "Computing's energy problem", ISSCC,
    figure 1.1.9). It ranks variants of a model; it is not what this machine draws.

    Example:
        >>> estimate(GraphCost(nodes=(), weight_bytes=1_000_000, uncounted=())).millijoules
        0.16
    """
    floats = cost.macs - cost.integer_macs
    moved = cost.weight_bytes + cost.activation_bytes
    picojoules = FLOAT_MAC_PJ * floats + INTEGER_MAC_PJ * cost.integer_macs + DRAM_PJ_PER_BYTE * moved
    details = (
        f"estimate after Horowitz 2014 (45 nm): {floats} fp32 MACs, {cost.integer_macs} int8 MACs, {moved} bytes moved"
    )
    return Energy(picojoules * _PICO_TO_MILLI, "estimate", details)


def package_zones(powercap: Path = POWERCAP) -> list[Path]:
    """List the RAPL zones of whole processor packages that this user may read.

    Subzones (core, uncore, dram) lie inside a package or beside it depending on the CPU, and psys holds all of them:
    adding them up would count energy twice.
    """
    zones = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        name = folder / "name"
        if name.is_file() and name.read_text().startswith("package"):
            zones.append(folder)
    return [zone for zone in zones if _readable(zone / "energy_uj")]


class Rapl:
    """Running average power limit counters of Linux (AMD's too), in millijoules since the object was made.

    Args:
        zones: Folders with energy_uj and max_energy_range_uj; a counter starts at 0 again after the latter.
    """

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._range = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last = self._values()
        self._total = 0

    def read(self) -> float:
        """Give millijoules so far; must be called at least once in the time of a wrap (about a minute at full load)."""
        now = self._values()
        for value, last, wrap in zip(now, self._last, self._range, strict=True):
            self._total += value - last if value >= last else value - last + wrap
        self._last = now
        return self._total * _MICRO_TO_MILLI

    def _values(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


class Nvml:
    """Energy counter of the first NVIDIA GPU, in millijoules since the driver was loaded.

    Args:
        library: The module pynvml.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvmlInit()
        self._device = library.nvmlDeviceGetHandleByIndex(0)

    def read(self) -> float:
        """Give millijoules so far."""
        return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device))


def find_nvml() -> Nvml | None:
    """Open the GPU's counter where ONNX Runtime runs on the GPU and pynvml is installed."""
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers() or importlib.util.find_spec("pynvml") is None:
        return None
    return Nvml(importlib.import_module("pynvml"))


def net_energy(counter: Counter, work: Callable[[], object], seconds: float) -> tuple[float, int]:
    """Run work for a while and give (millijoules above idle, number of runs).

    Args:
        counter: Read before and after.
        work: One run.
        seconds: Length of the window of work, and of the idle one before it.
    """
    start, before = time.perf_counter(), counter.read()
    time.sleep(seconds)
    idle_power = (counter.read() - before) / (time.perf_counter() - start)
    start, before, runs = time.perf_counter(), counter.read(), 0
    while runs == 0 or time.perf_counter() - start < seconds:
        work()
        runs += 1
    used = counter.read() - before
    return max(used - idle_power * (time.perf_counter() - start), 0.0), runs


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:  # root only since Linux 5.10: then there is no counter for this user
        return False
    return True
