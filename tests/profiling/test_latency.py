"""Latency, memory and the profile of layers: their structure; times themselves are not tested."""

import gc

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.profiling import latency
from adaptkit.profiling.latency import Timing, compare, measure, speedup
from adaptkit.profiling.layer_times import layer_times
from adaptkit.profiling.memory import peak_memory
from adaptkit.report.schema import LATENCY_LEVELS
from adaptkit.specs import ProfileSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for width in (64, 8):
        model = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 64, 10))
        paths.append(folder / f"{width}.onnx")
        export_onnx(model, (torch.zeros(2, 3, 8, 8),), paths[-1])
    return paths


def test_interleaved_samples(files, monkeypatch):
    order, opened = [], latency.open_session

    class Recorder:
        def __init__(self, path, threads):
            self.name, self.session = path.stem, opened(path, threads)

        def run(self, names, feeds):
            order.append((self.name, gc.isenabled()))
            assert feeds["input"].shape == (4, 3, 8, 8)
            return self.session.run(names, feeds)

        def get_inputs(self):
            return self.session.get_inputs()

    monkeypatch.setattr(latency, "open_session", Recorder)
    timings = measure(files, threads=2, batch_size=4, warmup=2, repeats=6, seconds=60)
    twice = [("64", False), ("64", False), ("8", False), ("8", False)]
    assert order == [("64", False), ("8", False)] * 2 + twice * 6
    assert gc.isenabled()
    assert [len(timing.samples_ns) for timing in timings] == [6, 6]
    assert all(timing.threads == 2 and timing.batch_size == 4 for timing in timings)
    assert timings[0].load_average >= 0


def test_time_limit_leaves_a_few_samples(files):
    (timing,) = measure(files[:1], repeats=10_000, seconds=1e-6)
    assert len(timing.samples_ns) == 5


def test_percentiles_and_paired_speedup(tmp_path):
    times = tuple(range(1_000_000, 101_000_000, 1_000_000))
    found = Timing(tmp_path, 1, 1, times, 0.0).percentiles()
    assert (found.p50, found.p90, found.p99) == pytest.approx((50.5, 90.1, 99.01))
    assert found.calls == 100
    spread = dict(zip(LATENCY_LEVELS, found.quantiles, strict=True))
    assert (spread[1], spread[50], spread[90], spread[99]) == pytest.approx((1.99, 50.5, 90.1, 99.01))
    slow, fast = Timing(tmp_path, 1, 1, (10, 40, 90), 0.0), Timing(tmp_path, 1, 1, (10, 20, 30), 0.0)
    ratio = speedup(slow, fast)
    assert (ratio.low, ratio.median, ratio.high) == (1.5, 2.0, 2.5)


def test_every_pair_of_the_profile(files):
    profile = ProfileSpec(threads=(1, 2), batch_sizes=(1, 3), warmup=1, repeats=3, seconds=1)
    baseline, small = compare(files, profile)
    assert list(small.latency_ms) == ["t1_b1", "t1_b3", "t2_b1", "t2_b3"]
    assert all(ratio.median == ratio.low == ratio.high == 1 for ratio in baseline.speedup.values())
    assert small.speedup["t1_b3"].low <= small.speedup["t1_b3"].median <= small.speedup["t1_b3"].high


def test_fixed_batch_size(files, tmp_path):
    proto = onnx.load(files[1])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(proto, tmp_path / "fixed.onnx")
    with pytest.raises(ModelError, match=r"fixed\.onnx takes batches of 2 only; 1 was asked for"):
        measure([tmp_path / "fixed.onnx"])


def test_peak_memory_of_a_fresh_process(tmp_path):
    sizes = []
    ballast = np.zeros(30_000_000)  # of this process, not of the fresh one
    for width in (8, 4096):
        path = tmp_path / f"{width}.onnx"
        export_onnx(nn.Sequential(nn.Linear(width, 2048), nn.Linear(2048, 2)), (torch.zeros(2, width),), path)
        sizes.append(peak_memory(path))
    assert ballast.nbytes > sizes[0] - 2**28
    assert sizes[1] - sizes[0] > 0.9 * 4 * 2048 * 4088
    assert sizes[0] < 2**28


def test_memory_of_a_broken_file(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no")
    with pytest.raises(ModelError, match=r"cannot run broken\.onnx in a process of its own: .*"):
        peak_memory(path)


class Branches(nn.Module):
    """What ONNX Runtime merges: normalization, ReLU, the sum of a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))) + x)
        return self.head(x.mean((2, 3)))


def test_times_of_layers_by_their_names(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(Branches(), (torch.zeros(2, 3, 16, 16),), path)
    times = layer_times(path, repeats=3)
    assert set(times) == {"stem", "conv1", "conv2", "head"}
    assert all(time > 0 for time in times.values())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]


def test_a_linear_layer_that_is_fused_with_what_follows_keeps_its_name(tmp_path):
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.Tanh())
    export_onnx(model, (torch.zeros(2, 256),), tmp_path / "model.onnx")
    assert set(layer_times(tmp_path / "model.onnx", repeats=3)) == {"0", "2"}
