"""Networks over video: what is kept gives the same answers, and is kept no longer than it may be."""

import itertools
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.conditional.frame_parts import in_parts, write_parts
from adaptkit.errors import DataError, ModelError
from adaptkit.export.metadata import Normalize
from adaptkit.export.packaging import Packaging
from adaptkit.export.reach import map_cuts
from adaptkit.runtime import AdaptedModel
from adaptkit.runtime.frame_cache import PARTIAL, UNCHANGED, WHOLE, Stream
from adaptkit.runtime.frame_manifest import Tolerance
from adaptkit.runtime.regions import coarsen, lay_out, spread
from adaptkit.specs import ExportSpec
from tests.runtime.frame_networks import NETWORKS, SIZE, residual, video

PARTS = {name: in_parts(make(), map_cuts(make()), side=8) for name, make in NETWORKS.items()}
OPEN = {name: parts.open() for name, parts in PARTS.items()}
RECTANGLES = st.tuples(*[st.integers(0, SIZE - 1)] * 2, *[st.integers(1, 20)] * 2)


NEAR = {name: {"rtol": 1e-4, "atol": 1e-5} for name in NETWORKS} | {"quantized": {"atol": 0.05}}
"""Sums that are rounded to integers may fall to either side."""


def whole(network, frames):
    return np.concatenate([network.answer_whole(frame) for frame in frames])


def replanned(network, tolerance=None, **changes):
    """Set tolerances and limits."""
    plan = network.plan.model_copy(update=changes)
    if tolerance is not None:
        plan = plan.tolerating([tolerance, *[Tolerance(tau=0, few=0)] * len(plan.segments)])
    return network.replan(plan)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=15)
@given(rectangles=st.lists(RECTANGLES, min_size=1, max_size=4))
def test_without_tolerance_it_is_the_whole_network(name, rectangles):
    network, frames = OPEN[name], video(rectangles)
    result = Stream(network)(frames)
    np.testing.assert_allclose(result.logits, whole(network, frames), **NEAR[name])
    assert set(result.path[1:].tolist()) == {PARTIAL}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("corner", [(0, 0), (0, SIZE - 1), (SIZE - 1, 0), (SIZE - 1, SIZE - 1)])
def test_the_border_has_its_padding(name, corner):
    network, frames = OPEN[name], video([(*corner, 1, 1)])
    stream = Stream(network)
    np.testing.assert_allclose(stream(frames).logits, whole(network, frames), **NEAR[name])
    fresh = Stream(network)
    fresh(frames[1:])
    for kept, wanted in zip(stream._maps, fresh._maps, strict=True):
        steps = {"atol": 1} if kept.values.dtype == np.uint8 else NEAR[name]
        np.testing.assert_allclose(kept.values.astype(float), wanted.values.astype(float), **steps)


def test_integers_are_kept_as_integers():
    assert [kept.values.dtype.name for kept in OPEN["quantized"].fresh_maps()] == ["float32", *["uint8"] * 3]


def test_only_tiles_that_see_the_change_are_made():
    """One pixel far from everything: a few windows, not the map."""
    network = OPEN["residual"]
    places = np.zeros((SIZE, SIZE), bool)
    places[20, 20] = True
    segment = network.segments[0]
    rows, columns = segment.tiles(places)
    assert 1 <= len(rows) <= 4 < segment.settings.most
    assert segment.make(np.zeros((3, SIZE, SIZE), np.float32), (rows, columns)).shape[0] == len(rows)


def test_segments_beyond_their_limit_make_the_whole_map():
    network = OPEN["residual"]
    segments = tuple(part.model_copy(update={"most": 0}) for part in network.plan.segments)
    limited = network.replan(network.plan.model_copy(update={"segments": segments}))
    frames = video([(5, 5, 9, 9), (30, 2, 3, 3)])
    result = Stream(limited)(frames)
    np.testing.assert_allclose(result.logits, whole(network, frames), rtol=1e-4, atol=1e-5)
    assert result.path.tolist() == [WHOLE, PARTIAL, PARTIAL]


@settings(max_examples=15)
@given(st.floats(0.01, 1), st.integers(0, 300), st.integers(0, 1000))
def test_answers_are_exact_for_a_frame_within_the_tolerance(tau, few, seed):
    """What drifts: the kept frame is off by more than tau in few places at most, and the answer is its own."""
    network = replanned(OPEN["residual"], Tolerance(tau=tau, few=few))
    stream, rng = Stream(network), np.random.default_rng(seed)
    frame = rng.normal(size=(3, SIZE, SIZE)).astype(np.float32)
    for _ in range(5):
        frame = frame + rng.normal(0, 0.2, frame.shape).astype(np.float32) * (rng.random(frame.shape[1:]) < 0.2)
        answer = stream(frame[None]).logits
        kept = stream.kept_frame[0]
        assert (np.abs(frame - kept) > np.float32(tau)).any(axis=0).sum() <= few
        np.testing.assert_allclose(answer, network.answer_whole(kept), rtol=1e-4, atol=1e-5)


def test_slow_drift_is_seen():
    """Each step is below tau, and together they are not."""
    network = replanned(OPEN["residual"], Tolerance(tau=0.25, few=0))
    frame = video([])[0]
    steps = np.stack([frame + np.float32(0.1 * step) for step in range(9)])
    path = Stream(network)(steps).path
    assert path.tolist() == [WHOLE, *[UNCHANGED, UNCHANGED, PARTIAL] * 2, UNCHANGED, UNCHANGED]


def test_inner_maps_within_tolerance_stop_the_work_and_are_not_forgotten():
    """Inner changes that wait add up: once they are more than few, all of them are made."""
    network, exact = OPEN["residual"], Tolerance(tau=0, few=0)
    tolerances = [exact, Tolerance(tau=0, few=20), *[exact] * (len(network.segments) - 1)]
    stream = Stream(network.replan(network.plan.tolerating(tolerances)))
    frames = video([(2, 2, 1, 1), (40, 40, 1, 1), (20, 20, 1, 1), (2, 40, 1, 1)])  # nine places each of the first map
    answers = stream(frames).logits
    same = [bool((a == b).all()) for a, b in itertools.pairwise(answers)]
    assert same == [True, True, False, True]
    other = video([], seed=5)
    np.testing.assert_allclose(stream(other).logits, whole(network, other), rtol=1e-4, atol=1e-5)


def test_a_scene_cut_is_made_whole_and_the_next_frame_in_parts():
    network = replanned(OPEN["residual"], most=12)
    cut = np.concatenate([video([]), video([(10, 10, 2, 2)], seed=9)])
    result = Stream(network)(cut)
    assert result.path.tolist() == [WHOLE, WHOLE, PARTIAL]
    np.testing.assert_allclose(result.logits, whole(network, cut), rtol=1e-4, atol=1e-5)


def test_a_refresh_is_due_whatever_changed():
    network = replanned(OPEN["residual"], refresh_every=3)
    still = np.repeat(video([]), 8, axis=0)
    assert Stream(network)(still).path.tolist() == [WHOLE, *[UNCHANGED, UNCHANGED, WHOLE] * 2, UNCHANGED]


def test_a_moving_camera_is_looked_at_ever_more_rarely():
    """Of the frames that change all over, fewer and fewer are compared, down to one in longest_wait + 3."""
    network = replanned(OPEN["residual"], most=0, longest_wait=7)
    looked, stream = [], Stream(network)
    rng = np.random.default_rng(0)
    for number in range(60):
        stream(rng.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32))
        looked += [number] if stream._valid else []
    assert looked == [0, 1, 2, 3, 6, 11, 20, 29, 38, 47, 56]


def test_it_looks_again_once_the_camera_stands_still():
    network = replanned(OPEN["residual"], most=0, longest_wait=7)
    stream, rng = Stream(network), np.random.default_rng(0)
    stream(rng.normal(size=(30, 3, SIZE, SIZE)).astype(np.float32))
    still = np.repeat(video([]), 20, axis=0)
    assert stream(still).path[-5:].tolist() == [UNCHANGED] * 5


def test_a_network_without_parts_skips_whole_frames(tmp_path):
    parts = in_parts(residual(), ())
    write_parts(parts, tmp_path, Packaging())
    model = AdaptedModel.load(tmp_path, 1)
    frames = video([(1, 1, 1, 1), (1, 1, 0, 0)])
    result = model(frames)
    assert result.path.tolist() == [WHOLE, WHOLE, UNCHANGED]
    np.testing.assert_allclose(result.logits, whole(parts.open(), frames), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.rglob("*.onnx")] == ["model.onnx"]


def test_too_small_maps_have_no_segments():
    assert in_parts(residual(), map_cuts(residual()), side=48).plan.segments == ()


@pytest.fixture
def folder(tmp_path):
    write_parts(PARTS["residual"], tmp_path, Packaging())
    return tmp_path


def test_a_folder_runs_as_the_network_in_memory(folder):
    frames = video([(3, 3, 8, 8), (40, 40, 8, 8)])
    model = AdaptedModel.load(folder, 1)
    result = model(frames)
    np.testing.assert_array_equal(result.logits, Stream(OPEN["residual"])(frames).logits)
    assert model.paths == ("unchanged", "partial", "whole")
    assert [(way.name, way.samples) for way in model.statistics] == [("partial", 2), ("whole", 1)]
    assert (np.diff(result.waited) > 0).all()
    assert set(result.seconds) == {"partial", "whole"}


def test_frames_that_the_file_normalizes(tmp_path):
    """Tau then counts pixels: less of them than of the normalized values."""
    parts, mean, std = PARTS["residual"], (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    tolerance = [Tolerance(tau=0.5, few=3), *parts.plan.tolerances[1:]]
    parts = type(parts)(parts.whole, parts.segments, parts.rest, parts.plan.tolerating(tolerance))
    write_parts(parts, tmp_path, Packaging(ExportSpec(normalize_in_graph=True), mean=mean, std=std))
    model = AdaptedModel.load(tmp_path, 1)
    assert model.normalize == Normalize(mean, std, in_graph=True)
    plan = json.loads((tmp_path / "manifest.json").read_text())["plan"]
    assert plan["tolerances"][0] == {"tau": pytest.approx(0.1), "few": 3}
    frames = np.clip(video([(3, 3, 20, 20)]) * np.float32(0.2) + np.float32(0.5), 0, 1)
    result = model(frames)
    assert result.path.tolist() == [WHOLE, PARTIAL]
    normalized = (frames - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    wanted = whole(OPEN["residual"], normalized.astype(np.float32))
    np.testing.assert_allclose(result.logits[0], wanted[0], rtol=1e-4, atol=1e-4)


def test_streams_do_not_mix(folder):
    """Two cameras in turns, each with its own frames, and threads that share them."""
    runner = AdaptedModel.load(folder, 1).runner
    videos = {seed: video([(seed, 3 * seed, 6, 6)] * 4, seed) for seed in range(6)}
    wrong = []

    def watch(seed):
        for frame in videos[seed]:
            answer = runner.stream(seed)(frame[None]).logits
            if not np.allclose(answer, OPEN["residual"].answer_whole(frame), rtol=1e-4, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=watch, args=(seed,)) for seed in videos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert runner.stream(2) is runner.stream(2)
    kept = runner.stream(2)
    runner.forget(2)
    assert runner.stream(2) is not kept


def test_threads_on_one_stream_get_answers_to_their_own_frames(folder):
    model = AdaptedModel.load(folder, 1)
    frames = video([(5 * step, 5 * step, 5, 5) for step in range(8)])
    answers = {}

    def ask(number):
        answers[number] = model(frames[number : number + 1]).logits[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = np.stack([answers[number] for number in range(len(frames))])
    np.testing.assert_allclose(found, whole(OPEN["residual"], frames), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3, SIZE, SIZE), (1, 3, SIZE, SIZE + 8), (1, 1, SIZE, SIZE), (3, SIZE, SIZE)])
def test_frames_of_another_size(shape):
    stream = Stream(OPEN["residual"])
    stream(video([]))
    with pytest.raises(DataError, match="the stream takes one frame or more of 3 × 48 × 48; got shape"):
        stream(np.zeros(shape, np.float32))


def test_nan_and_infinity(folder):
    model = AdaptedModel.load(folder, 1)
    frames = video([(4, 4, 4, 4)])
    model(frames)
    with pytest.raises(DataError, match="holds NaN or infinity"):
        model(np.full((1, 3, SIZE, SIZE), np.nan, np.float32))
    with pytest.raises(DataError, match="answers with NaN or infinity"):
        model(np.full((1, 3, SIZE, SIZE), 3e38, np.float32))
    np.testing.assert_allclose(model(frames).logits, whole(OPEN["residual"], frames), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["plan"]["segments"][1].update(tile=5), "tiles of 5 and a stride of . do not fit the maps"),
        (lambda m: m["plan"]["segments"][0].update(stride=1), "do not fit the maps"),
        (lambda m: m["plan"]["segments"].pop(), "segments and a rest have"),
        (lambda m: m["plan"]["segments"].insert(0, m["plan"]["segments"].pop()), "does not take what comes before"),
        (lambda m: m["plan"]["segments"][0].update(file="parts/9.onnx"), r"parts/9\.onnx is not among the files"),
        (lambda m: m["plan"].update(refresh_every=0), r"plan\.refresh_every"),
        (lambda m: m["plan"]["tolerances"][0].update(tau=-1), r"plan\.tolerances\.0\.tau"),
        (lambda m: m["plan"]["tolerances"][0].update(tau="NaN"), r"plan\.tolerances\.0\.tau"),
        (lambda m: m["plan"]["frame"].update(shape=[3]), "a frame has channels, height, width"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "is not the file that manifest.json names"),
        (lambda m: m.update(plan=None), "is wrong at plan"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match=message):
        AdaptedModel.load(folder)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.integers(0, 9), st.integers(0, 9))
def test_windows_hold_all_that_their_tiles_see(stride, tile, tiles, before, after):
    size = stride * tile * tiles
    axis = lay_out(size, stride, tile, before, after)
    for number, (start, offset) in enumerate(zip(axis.starts, axis.offsets, strict=True)):
        first, last = number * tile, number * tile + tile - 1
        assert start % stride == 0
        assert start <= max(0, first * stride - before)
        assert start + axis.length > min(size - 1, last * stride + after)
        assert 0 <= start <= start + axis.length <= size
        assert start // stride + offset == first


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**16))
def test_spreading_place_by_place(before, after, seed):
    mask = np.random.default_rng(seed).random((6, 9)) < 0.1
    slow = np.zeros_like(mask)
    for row in range(6):
        for column in range(9):
            around = mask[
                max(0, row - before) : row + after + 1,
                max(0, column - before) : column + after + 1,
            ]
            slow[row, column] = around.any()
    np.testing.assert_array_equal(spread(mask, before, after), slow)


@given(st.integers(1, 4), st.integers(0, 2**16))
def test_coarsening_place_by_place(step, seed):
    mask = np.random.default_rng(seed).random((12, 24)) < 0.05
    slow = [[mask[r : r + step, c : c + step].any() for c in range(0, 24, step)] for r in range(0, 12, step)]
    np.testing.assert_array_equal(coarsen(mask, step), np.array(slow))
