import numpy as np
import pytest

from adaptkit.metrics.calibration import ece
from adaptkit.metrics.curve import Curve
from adaptkit.metrics.forms import probabilities


def outputs(samples=200, classes=5):
    generator = np.random.default_rng(0)
    return generator.normal(size=(samples, classes)) * 2, generator.integers(0, classes, samples)


def test_batches_make_the_curve_of_the_whole():
    given, target = outputs()
    parts, whole = Curve(), Curve()
    for start in range(0, 200, 32):
        parts.add(given[start : start + 32], target[start : start + 32])
    whole.add(given, target)
    assert parts.bins() == whole.bins()
    assert sum(found.samples for found in parts.bins()) == 200


def test_the_gaps_of_the_bins_are_the_calibration_error():
    given, target = outputs()
    curve = Curve()
    curve.add(given, target)
    gaps = [found.samples * abs(found.accuracy - found.confidence) for found in curve.bins() if found.samples]
    assert sum(gaps) / 200 == pytest.approx(ece(probabilities(given), target))


def test_a_slow_count_agrees():
    given, target = outputs(60)
    curve = Curve()
    curve.add(given, target)
    shares = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
    for found in curve.bins():
        rows = [row for row in range(60) if found.low < shares[row].max() <= found.high]
        assert found.samples == len(rows)
        if rows:
            assert found.confidence == pytest.approx(np.mean([shares[row].max() for row in rows]))
            assert found.accuracy == pytest.approx(np.mean([shares[row].argmax() == target[row] for row in rows]))


@pytest.mark.parametrize("bad", [np.zeros((3, 1)), np.zeros((3, 4, 4)), np.full((3, 2), np.nan)])
def test_outputs_that_are_no_scores_have_no_curve(bad):
    given, target = outputs()
    curve = Curve()
    curve.add(given, target)
    curve.add(bad, np.zeros(3, int))
    assert curve.bins() == []


def test_no_sample_no_curve():
    assert Curve().bins() == []
