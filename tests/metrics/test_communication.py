"""Bytes as they really go over a socket, and the seconds of a link."""

import json
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from torch import nn

from adaptkit.errors import DataError
from adaptkit.export.onnx import export_onnx
from adaptkit.metrics import Link, Traffic, inference_traffic, measure_loopback, round_traffic
from adaptkit.metrics.communication import serialized_bytes
from adaptkit.runtime import AdaptedModel
from tests.cli import conditional

amounts = st.integers(0, 10**9)


@given(up=amounts, down=amounts, more=st.integers(1, 10**6))
def test_a_link_takes_longer_for_more_bytes(up, down, more):
    link = Link(up=2e6, down=10e6, round_trip=0.05)
    taken = link.seconds(Traffic(up, down))
    assert taken == pytest.approx((0.05 if up + down else 0) + up / 250_000 + down / 1_250_000)
    assert link.seconds(Traffic(up + more, down)) > taken
    assert Link(4e6, 20e6, 0.05).seconds(Traffic(up, down)) <= taken


@pytest.mark.parametrize("wrong", [(0, 1, 0), (1, -1, 0), (1, 1, -0.1), (math.nan, 1, 0), (1, 1, math.nan)])
def test_what_is_no_link(wrong):
    with pytest.raises(DataError, match="bandwidths above 0 and a round trip of at least 0; got Link"):
        Link(*wrong)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("communication")
    conditional.write(found)
    return found


def test_bytes_of_an_early_exit_are_those_that_cross(folder):
    x = np.full((4, 1, 4, 4), 0.1, np.float32)
    x[3] = 0.5001  # the first exit is not sure of it
    model = AdaptedModel.load(folder / "run")
    result = model(x)
    shares = [float(np.mean(result.path == place)) for place in range(2)]
    assert shares == [0.75, 0.25]
    stages = json.loads((folder / "run" / "manifest.json").read_text())["stages"]
    crossing = stages[0]["gives"]["bytes"]
    everything = inference_traffic(folder / "run", 0, shares)
    assert everything == Traffic(up=x[0].nbytes, down=result.logits[0].nbytes)
    assert inference_traffic(folder / "run", 1, shares) == Traffic(0.25 * crossing, 0.25 * result.logits[0].nbytes)
    assert inference_traffic(folder / "run", 2, shares) == Traffic(0, 0)


def test_bytes_of_a_plain_file_are_input_and_output(folder):
    assert inference_traffic(folder / "plain.onnx") == Traffic(up=16 * 4, down=2 * 4)
    assert inference_traffic(folder / "plain.onnx", cut=1) == Traffic(0, 0)
    assert inference_traffic(folder / "single") == Traffic(up=16 * 4, down=2 * 4)


@pytest.mark.parametrize(
    ("cut", "shares", "message"),
    [
        (3, [0.5, 0.5], "the model has 2 stages: the cut is from 0 to 2; got 3"),
        (-1, [0.5, 0.5], "the cut is from 0 to 2; got -1"),
        (1, [1.0], r"shares are one of at least 0 a stage \(2\), and sum to 1; got \[1.0\]"),
        (1, [0.5, 0.6], "and sum to 1"),
        (1, [1.5, -0.5], "of at least 0 a stage"),
    ],
)
def test_cuts_and_shares_that_do_not_fit(folder, cut, shares, message):
    with pytest.raises(DataError, match=message):
        inference_traffic(folder / "run", cut, shares)


def test_a_size_that_varies_has_no_bytes(tmp_path):
    import onnx

    export_onnx(nn.ReLU(), (torch.zeros(2, 3, 4),), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(DataError, match="has no fixed size, only its batch may vary: its bytes are not known"):
        inference_traffic(tmp_path / "model.onnx")


def test_bytes_of_a_round_are_those_of_the_file_that_is_sent(tmp_path):
    weights = nn.Linear(30, 20).state_dict()
    update = {name: value.half() for name, value in weights.items()}
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "down.safetensors")
    save_file(update, tmp_path / "up.safetensors")
    sizes = {name: (tmp_path / f"{name}.safetensors").stat().st_size for name in ("up", "down")}
    assert round_traffic(weights, update, clients=5) == Traffic(5 * sizes["up"], 5 * sizes["down"])
    shared = torch.zeros(4, 6)
    views = {"a": shared, "b": shared.T}
    assert serialized_bytes(views) > 2 * shared.nbytes
    assert load(save_views(views))["b"].shape == (6, 4)
    with pytest.raises(DataError, match="a round has at least one client; got clients=0"):
        round_traffic(weights, update, clients=0)


def save_views(tensors):
    from safetensors.torch import save

    return save({name: value.clone().contiguous() for name, value in tensors.items()})


@pytest.mark.parametrize("traffic", [Traffic(0, 0), Traffic(1, 0), Traffic(100_000, 7), Traffic(3, 300_000)])
def test_exchanges_over_a_real_socket_are_timed(traffic):
    before = threading.active_count()
    seconds = measure_loopback(traffic, repeats=4, warmup=1)
    assert len(seconds) == 4
    assert all(0 < each < 30 for each in seconds)
    assert threading.active_count() == before


def test_every_byte_is_carried():
    # 64 MB need time, however fast memory is; nothing sent would take none.
    assert min(measure_loopback(Traffic(32_000_000, 32_000_000), repeats=2, warmup=0)) > 0.002
    assert min(measure_loopback(Traffic(0, 0), repeats=20)) < 0.002


@pytest.mark.parametrize(
    ("traffic", "settings"),
    [
        (Traffic(-1, 0), {}),
        (Traffic(0.5, 0), {}),
        (Traffic(1, 1), {"repeats": 0}),
        (Traffic(1, 1), {"warmup": -1}),
    ],
)
def test_what_cannot_be_sent(traffic, settings):
    with pytest.raises(DataError, match="give whole bytes of at least 0 and one repeat or more"):
        measure_loopback(traffic, **settings)
