"""The measured time of replacements beside their originals."""

import pytest

from adaptkit.factorization import times
from adaptkit.factorization.times import PairTimes
from adaptkit.profiling.layer_latency import LayerShape


def test_what_a_call_takes_that_does_nothing_is_no_time_of_a_layer(monkeypatch):
    monkeypatch.setattr(times, "chain_seconds", lambda chains, *_: [10e-6, 7e-6][: len(chains)])
    measured = PairTimes()
    measured._store.values["a call, threads 1"] = 4e-6
    layer, part = LayerShape("linear", 8, 8), LayerShape("linear", 8, 2)
    assert measured.ratio(layer, [part]) == pytest.approx(3 / 6)
    assert measured.seconds(layer) == pytest.approx(6e-6)
