"""Latency on real samples, with a clock that the test moves: which calls are made, which count, what comes of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaptkit.loading.batches import Batches
from adaptkit.profiling import sample_latency
from adaptkit.profiling.sample_latency import compare_on_samples, measure_on_samples, ratios_of_means
from adaptkit.runtime.result import Result
from adaptkit.specs import ProfileSpec

PASSES = 5


class World:
    """Fake models on a fake clock: "fast" takes 1 s a sample, "slow" 3 s, both 4 s more where the sample is odd."""

    def __init__(self):
        self.now, self.log, self.opened, self.interrupted = 0.0, [], [], set()

    def load(self, path, threads):
        self.opened.append((path.name, threads))
        return SimpleModel(self, path.name, len(self.opened))


class SimpleModel:
    paths = ("even", "odd", "never")

    def __init__(self, world, name, number):
        self.world, self.name, self.number = world, name, number

    def expected_input(self, x):
        return x

    def __call__(self, x):
        number = x[:, 0].astype(int)
        self.world.log.append((self.name, number.tolist()))
        waited = np.cumsum({"fast": 1.0, "slow": 3.0}[self.name] + 4.0 * (number % 2))
        self.world.now += waited[-1] + (1000.0 if len(self.world.log) in self.world.interrupted else 0)
        return Result(x, number % 2, {}, waited)


@pytest.fixture
def world(monkeypatch):
    found = World()
    monkeypatch.setattr(sample_latency, "AdaptedModel", SimpleNamespace(load=found.load))
    monkeypatch.setattr(sample_latency, "perf_counter", lambda: found.now)
    return found


FILES = [Path("slow"), Path("fast")]


def samples(count):
    return Batches(torch.arange(count).float()[:, None], torch.zeros(count, dtype=torch.long))


def test_blocks_alternate_and_the_call_before_each_does_not_count(world):
    timings = measure_on_samples(FILES, samples(20), repeats=1, seconds=1e9)
    assert world.opened == [(name, 1) for _ in range(PASSES) for name in ("slow", "fast")]
    per_pass = len(world.log) // PASSES
    assert per_pass == 2 * (20 + 3)
    position, seen = 0, {"slow": [], "fast": []}
    while position < per_pass:
        name = world.log[position][0]
        block = [number for _, (number,) in world.log[position : position + 9]]
        size = 9 if (block[0] + 1) % 20 in (0, 8) else 5
        assert [(number - block[0]) % 20 for number in block[:size]] == list(range(size))
        assert {model for model, _ in world.log[position : position + size]} == {name}
        seen[name] += block[1:size]
        position += size
    assert seen["slow"] == seen["fast"]
    assert sorted(seen["slow"]) == list(range(20))
    assert world.log == world.log[:per_pass] * PASSES
    assert [len(timing.calls) for timing in timings] == [PASSES, PASSES]


def test_figures_by_hand(world):
    slow, fast = compare_on_samples(FILES, samples(16), ProfileSpec(repeats=1, seconds=1e9))
    latency = fast.latency_ms["t1_b1"]
    assert (latency.mean, latency.p50, latency.p99) == (3000.0, 3000.0, 5000.0)
    assert fast.timings["t1_b1"].of_way("even").p99 == 1000.0
    assert fast.timings["t1_b1"].of_way("odd").mean == 5000.0
    assert fast.timings["t1_b1"].of_way("never") is None
    assert ratios_of_means(slow, fast)["t1_b1"].model_dump() == pytest.approx(
        {"median": 5 / 3, "low": 5 / 3, "high": 5 / 3}
    )


def test_a_machine_that_interrupts_a_call_in_two_passes_of_five_changes_nothing(world):
    per_pass = 2 * (16 + 2)
    world.interrupted = {5, per_pass + 5, 2 * per_pass + 7}
    _, fast = compare_on_samples(FILES, samples(16), ProfileSpec(repeats=1, seconds=1e9))
    assert fast.latency_ms["t1_b1"].mean == 3000.0


def test_short_of_time_every_pass_is_over_the_same_blocks(world):
    timings = measure_on_samples(FILES, samples(800), repeats=200, seconds=0)
    assert len(timings[0].calls) == PASSES
    assert {len(calls) for calls in timings[0].calls} == {8}
    assert world.log == world.log[: len(world.log) // PASSES] * PASSES


def test_passes_go_on_until_there_are_as_many_calls_as_asked_for(world):
    timings = measure_on_samples(FILES, samples(8), repeats=60, seconds=1e9)
    assert [len(calls) for calls in timings[0].calls] == [8] * 8


def test_batches_are_whole(world):
    timings = measure_on_samples(FILES, samples(20), batch_size=8, repeats=1, seconds=1e9)
    assert {len(numbers) for _, numbers in world.log} == {8}
    assert (len(timings[0].calls[0]), len(timings[0].waited[0])) == (2, 16)
    world.log.clear()
    measure_on_samples(FILES, samples(3), batch_size=8, repeats=1, seconds=1e9)
    assert world.log[0][1] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_blocks_are_drawn_from_all_over_the_data(world):
    measure_on_samples(FILES, samples(8000), repeats=40, seconds=5e4)
    per_pass = world.log[: len(world.log) // PASSES]
    assert max(numbers[0] for _, numbers in per_pass) > 6000
    assert min(numbers[0] for _, numbers in per_pass) < 2000
