"""Energy by counters in a fake /sys, by a fake GPU library, and by the documented estimate."""

import sys
import types

import pytest
import torch
from torch import nn

from adaptkit.export.onnx import export_onnx
from adaptkit.profiling import energy
from adaptkit.profiling.energy import Nvml, Rapl, energy_per_inference, estimate, net_energy, package_zones
from adaptkit.profiling.epr import epr
from adaptkit.profiling.graph import GraphCost, NodeCost


def zone(folder, name, microjoules, wrap=1_000_000):
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    return folder


@pytest.fixture
def powercap(tmp_path):
    zone(tmp_path / "intel-rapl:0", "package-0", 100)
    zone(tmp_path / "intel-rapl:0:0", "core", 50)
    zone(tmp_path / "intel-rapl:1", "package-1", 999_000)
    zone(tmp_path / "intel-rapl:2", "psys", 7)
    return tmp_path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("energy") / "model.onnx"
    export_onnx(nn.Linear(8, 4), (torch.zeros(2, 8),), path)
    return path


def test_only_packages_count(powercap):
    assert [folder.name for folder in package_zones(powercap)] == ["intel-rapl:0", "intel-rapl:1"]
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert [folder.name for folder in package_zones(powercap)] == ["intel-rapl:0"]
    assert package_zones(powercap / "absent") == []


def test_counter_sums_packages_and_wraps(powercap):
    rapl = Rapl(package_zones(powercap))
    assert rapl.read() == 0
    (powercap / "intel-rapl:0" / "energy_uj").write_text("5100")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("3000")  # 999000 → 1000000 → 3000
    assert rapl.read() == pytest.approx(5.0 + 4.0)
    assert rapl.read() == pytest.approx(9.0)


class Clock:
    """Time and energy that only move when told: 10 mJ a second idle, 3 mJ more for each run of 0.25 s."""

    def __init__(self):
        self.now = self.energy = 0.0

    def sleep(self, seconds):
        self.now += seconds
        self.energy += 10 * seconds

    def work(self):
        self.sleep(0.25)
        self.energy += 3

    def read(self):
        return self.energy


def test_idle_energy_is_subtracted(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(energy, "time", types.SimpleNamespace(perf_counter=lambda: clock.now, sleep=clock.sleep))
    assert net_energy(clock, clock.work, seconds=2.0) == (pytest.approx(8 * 3), 8)


def test_method_is_rapl_where_counters_are(file, powercap):
    found = energy_per_inference(file, seconds=0.01, powercap=powercap)
    assert (found.method, found.millijoules) == ("rapl", 0.0)
    assert "2 package zones" in found.details


def test_method_is_an_estimate_where_nothing_counts(file, tmp_path):
    found = energy_per_inference(file, powercap=tmp_path)
    moved = 4 * (8 * 4 + 4 + 8 + 4)
    assert found.method == "estimate"
    assert found.millijoules == pytest.approx((32 * 4.6 + 160 * moved) * 1e-9)
    assert f"32 fp32 MACs, 0 int8 MACs, {moved} bytes" in found.details


def test_estimate_by_hand():
    nodes = (
        NodeCost("a", "a", 1000, integer=True, depthwise=False, channels=(1, 1), activation_bytes=10),
        NodeCost("b", "b", 500, integer=False, depthwise=False, channels=(1, 1), activation_bytes=40),
    )
    found = estimate(GraphCost(nodes, weight_bytes=50, uncounted=()))
    assert found.millijoules == pytest.approx((1000 * 0.23 + 500 * 4.6 + 100 * 160) * 1e-9)


def test_gpu_counter(file, tmp_path, monkeypatch):
    library = types.ModuleType("pynvml")
    library.__spec__ = types.SimpleNamespace()
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByIndex = lambda index: ("gpu", index)
    library.nvmlDeviceGetTotalEnergyConsumption = lambda device: 1234 if device == ("gpu", 0) else 0
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert energy.find_nvml() is None
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert isinstance(energy.find_nvml(), Nvml)
    assert energy.find_nvml().read() == 1234.0
    assert energy_per_inference(file, seconds=0.01, powercap=tmp_path).method == "nvml"


def test_epr_weighs_error_and_energy():
    assert epr(0, 98, 5.0) == pytest.approx(0.05)
    assert epr(49, 98, 5.0, alpha=2) == pytest.approx(0.25 * 5)
    assert epr(1, 98, 5.0) > epr(0, 98, 5.0) > 0
    assert epr(1, 98, None) is None
