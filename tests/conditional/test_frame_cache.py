"""Tolerances for video: found on real runs, bounded, and refused where nothing is gained."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.conditional import frame_calibration
from adaptkit.conditional.base import opened
from adaptkit.conditional.frame_cache import FrameCache
from adaptkit.conditional.frame_parts import EXACT, in_parts
from adaptkit.conditional.frame_tests import Outcome, follow, in_order, replay
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.conditionals import CONDITIONALS
from adaptkit.errors import DataError, TargetError
from adaptkit.export.reach import map_cuts
from adaptkit.metrics.bounds import drop_bound
from adaptkit.technique import Context
from tests.runtime.frame_networks import SIZE, residual, video

LOOSE = {"max_disagreement": 0.5, "parts": False}


@pytest.fixture
def gaining(monkeypatch):
    """Networks this small gain nothing: their own time is that of looking for changes."""
    monkeypatch.setattr(frame_calibration, "_WORTH", float("inf"))


class Net(nn.Module):
    """Two convolutions and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def context(x):
    return Context(example_inputs=(x[:2],), validation=(x, torch.zeros(len(x), dtype=torch.long)))


def pairs(count, size=32):
    """Every frame comes twice."""
    return torch.randn(count, 3, size, size).repeat_interleave(2, 0)


@pytest.mark.usefixtures("gaining")
def test_frames_that_come_twice_are_answered_once():
    x = pairs(40)
    notes = context(x)
    artifact = FrameCache(**LOOSE).wrap(PlainArtifact(Net(), (x[:2],)), Net(), notes)
    assert artifact.paths == ("unchanged", "partial", "whole")
    assert artifact.outcome.shares[0] >= 0.45
    assert "validation frames were unchanged" in notes.notes[0]
    assert [share for _, share in artifact.parts] == [artifact.outcome.shares[2]]
    unchanged, partial, whole = artifact.answers(x[:3])
    assert unchanged is None
    assert partial is None
    with opened(artifact) as model:
        result = model(x[:3].numpy())
        np.testing.assert_allclose(result.logits[0], whole[0].detach().numpy(), atol=1e-5)
        assert result.path.tolist() == [2, 0, 2]


@pytest.mark.usefixtures("gaining")
def test_the_settings_reach_the_manifest():
    x = pairs(40)
    artifact = FrameCache(refresh_every=7, longest_wait=9, **LOOSE).calibrate(Net(), context(x))
    assert (artifact.cut.plan.refresh_every, artifact.cut.plan.longest_wait) == (7, 9)


def test_nothing_is_gained_where_everything_moves():
    x = torch.randn(40, 3, 32, 32)
    with pytest.raises(TargetError, match=r"gains nothing .* the frames change too much, or .*: allow more"):
        FrameCache(max_disagreement=0.2, max_error=1e-3, parts=False).calibrate(Net(), context(x))


def test_a_few_frames_bound_nothing():
    x = torch.randn(20, 3, 32, 32)
    with pytest.raises(TargetError, match=r"14 frames alone leave a bound of .* %: give more"):
        FrameCache(max_disagreement=0.01, parts=False).calibrate(Net(), context(x))


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (None, "needs consecutive frames"),
        ((torch.zeros(9, 5), torch.zeros(9)), "two consecutive frames or more"),
        ((torch.zeros(1, 3, 8, 8), torch.zeros(1)), "two consecutive frames or more"),
    ],
)
def test_no_frames(validation, message):
    with pytest.raises(DataError, match=message):
        FrameCache().calibrate(Net(), Context(example_inputs=(torch.zeros(2, 3, 8, 8),), validation=validation))


def test_it_is_in_the_table():
    assert CONDITIONALS["frame_cache"] is FrameCache


def test_parts_are_taken_where_they_are_faster(monkeypatch):
    """With times that say so, inner tolerances are raised until one fails, and the last that held stays."""
    x = torch.from_numpy(video([(8 * (n % 5), 8, 4, 4) for n in range(39)]))
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()
    monkeypatch.setattr(frame_calibration, "with_limits", lambda parts, *_: parts if parts.segments else None)
    ticks = itertools.count(1, -1)
    monkeypatch.setattr(frame_calibration._Search, "_timed", lambda *_: float(next(ticks)))
    artifact = frame_calibration.find_plan(
        FrameCache(max_disagreement=0.3), PlainArtifact(net, (x[:2],)), _quick(monkeypatch, x), 1
    )
    assert artifact.cut.plan.segments
    assert artifact.outcome.bound <= 0.3
    network = artifact.cut.open()
    last = x[12:].numpy()
    full = np.concatenate([network.answer_whole(frame) for frame in last])
    again = follow(network, last, full, 0.975)
    assert (again.differing, again.shares) == (artifact.outcome.differing, artifact.outcome.shares)


def _quick(monkeypatch, x):
    """Make whatever runs in parts look quick."""
    run = frame_calibration.follow

    def quick(*args):
        outcome = run(*args)
        return Outcome(outcome.shares, outcome.differing, outcome.frames, outcome.bound, outcome.error, 1e-9)

    monkeypatch.setattr(frame_calibration, "follow", quick)
    return context(x)


def test_a_replay_is_what_a_run_is():
    """The shares and the answers of a network without parts, without running it."""
    parts = in_parts(residual(), ())
    network = parts.open()
    frames = np.repeat(video([(1, 1, 6, 6), (20, 20, 9, 9), (2, 30, 5, 5)]), 3, axis=0)
    full = np.concatenate([network.answer_whole(frame) for frame in frames])
    replayed, run = replay(parts.plan, frames, full, 1.0), follow(network, frames, full)
    assert replayed.shares == run.shares
    assert (replayed.differing, replayed.error) == (run.differing, run.error) == (0, 0)


def test_an_error_counts_beside_another_class():
    """Halved outputs have the same largest class, and are off by their whole length."""
    network = in_parts(residual(), ()).open()
    frames = video([(0, 0, SIZE, SIZE)] * 5)
    full = np.concatenate([network.answer_whole(frame) for frame in frames]) / 2
    assert follow(network, frames, full).differing == 0
    strict = follow(network, frames, full, max_error=0.9)
    assert strict.differing == 6
    assert strict.error == pytest.approx(1)
    assert strict.bound == drop_bound(6, 0, 6)


def test_candidates_go_from_careful_to_fast():
    def one(differing, seconds):
        return Outcome((0, 0, 1), differing, 100, 0.0, 0.0, seconds)

    found = [one(0, 5), one(0, 4), one(1, 4.5), one(1, 3), one(9, 1), one(2, 2)]
    assert in_order(found, 0.05) == [1, 3, 5]


def test_exact_parts_of_a_network_need_no_tolerance():
    parts = in_parts(residual(), map_cuts(residual()), side=8)
    frames = video([(8 * n, 8, 4, 4) for n in range(5)])
    network = parts.open()
    full = np.concatenate([network.answer_whole(frame) for frame in frames])
    outcome = follow(network, frames, full, max_error=1e-4)
    assert outcome.differing == 0
    assert set(parts.plan.tolerances) == {EXACT}
