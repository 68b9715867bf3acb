"""Metrics by name: every one of the table."""

import math

import numpy as np
import pytest

from adaptkit import metrics
from adaptkit.errors import DataError
from adaptkit.metrics import METRICS, measure
from adaptkit.metrics.measured import Outputs

RNG = np.random.default_rng(0)
TARGET = RNG.integers(12, size=300)
LOGITS = (RNG.normal(size=(300, 12)) + 0.7 * np.eye(12)[TARGET]).astype(np.float32)
TWO = LOGITS[:, :2], (RNG.random(300) < 0.5).astype(np.int64)
NUMBERS = RNG.normal(size=300) + TARGET
INPUTS = dict.fromkeys(METRICS, (LOGITS, TARGET))
INPUTS |= {name: TWO for name in METRICS if name.endswith("_positive")}
INPUTS |= dict.fromkeys(("mse", "rmse", "mae", "max_error", "r2", "explained_variance"), (NUMBERS[:, None], TARGET))
INPUTS["nll"] = (np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)), TARGET)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_value_and_an_interval_around_it(name):
    found = measure([name], *INPUTS[name])[name]
    assert found.samples == 300
    assert found.problem is None
    assert found.low <= found.value
    if name not in ("max_error", "ece", "leep"):  # known from one side, or with a bias that the interval corrects
        assert found.low < found.value < found.high
    assert found == measure([name], *INPUTS[name])[name]
    order = np.random.default_rng(1).permutation(300)
    shuffled = measure([name], INPUTS[name][0][order], INPUTS[name][1][order])[name]
    assert shuffled.value == pytest.approx(found.value, rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_perfect_answers_are_the_best_there_is(name):
    outputs, target = INPUTS[name]
    perfect = target.astype(float) if METRICS[name].needs == "values" else np.eye(outputs.shape[1])[target]
    if name == "nll":
        perfect = np.log(np.where(perfect > 0, 1.0, 1e-300))
    best = measure([name], perfect, target)[name]
    top = 1.0 if METRICS[name].higher_is_better and name != "leep" else 0.0
    assert best.value == pytest.approx(top, abs=1e-9)
    worse = measure([name], outputs, target)[name]
    assert (best.value > worse.value) == METRICS[name].higher_is_better


def test_names_give_the_functions():
    found = measure(["accuracy", "top3", "f1", "roc_auc", "cross_entropy", "kl"], LOGITS, TARGET)
    p = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(axis=1, keepdims=True)
    predicted = LOGITS.argmax(axis=1)
    assert found["accuracy"].value == metrics.accuracy(predicted, TARGET)
    assert found["top3"].value == metrics.top_k(LOGITS, TARGET, 3)
    assert found["f1"].value == metrics.f1(predicted, TARGET)
    assert found["roc_auc"].value == pytest.approx(metrics.roc_auc(p, TARGET))
    assert found["cross_entropy"].value == pytest.approx(-np.log(p[np.arange(300), TARGET]).mean())
    assert found["kl"].value == found["cross_entropy"].value
    two = measure(["f1_positive", "precision_positive"], *TWO)
    assert two["f1_positive"].value == metrics.f1(TWO[0].argmax(axis=1), TWO[1], positive=1)
    assert two["precision_positive"].value == metrics.precision(TWO[0].argmax(axis=1), TWO[1], positive=1)


def test_probabilities_are_not_put_through_softmax_again():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    names = ["cross_entropy", "ece", "roc_auc", "kl"]
    for name in names:
        assert measure([name], p, TARGET)[name].value == pytest.approx(
            measure([name], LOGITS, TARGET)[name].value, rel=1e-4
        )
    # A model that is certain, and wrong, gives the truth no probability at all.
    assert measure(["cross_entropy"], np.eye(2)[[0, 1, 1]], [0, 1, 0])["cross_entropy"].value == math.inf


def test_the_calibration_curve_comes_with_the_calibration_error():
    found = measure(["ece", "accuracy"], LOGITS, TARGET)
    assert sum(each.samples for each in found["ece"].bins) == 300
    gaps = sum(each.samples * abs(each.accuracy - each.confidence) for each in found["ece"].bins if each.samples)
    assert found["ece"].value == pytest.approx(gaps / 300)
    assert found["accuracy"].bins == []


BROKEN = LOGITS.copy()
BROKEN[7, 3] = math.nan


@pytest.mark.parametrize(
    ("name", "outputs", "target", "message"),
    [
        ("roc_auc", LOGITS[:5], [3] * 5, "ROC AUC compares classes, and all 5 samples are of class 3"),
        ("top5", LOGITS[:, :3], TARGET % 3, "needs a model with at least 6 outputs a sample; this one has 3"),
        ("f1_positive", LOGITS, TARGET, "needs a model with exactly 2 outputs a sample; this one has 12"),
        ("f1_positive", TWO[0], TWO[1] * 0, "no sample is of class 1, which is to be the positive one"),
        ("accuracy", NUMBERS[:, None], TARGET, "needs a model with at least 2 outputs a sample; this one has 1"),
        ("rmse", LOGITS, TARGET, "needs a model with exactly 1 output a sample; this one has 12"),
        ("accuracy", BROKEN, TARGET, "outputs: 1 of 300 samples hold NaN or infinity, first at sample 7"),
        ("ece", BROKEN, TARGET, "outputs: 1 of 300 samples hold NaN or infinity, first at sample 7"),
        ("nll", LOGITS, TARGET, "outputs are no log-probabilities: the exponentials of sample 0 do not sum to 1"),
        ("f1", LOGITS, TARGET[:9], "target: has 9 samples, what belongs to them has 300"),
        ("cross_entropy", LOGITS, TARGET + 9, "target: classes go from 0 to 11; sample"),
        ("r2", NUMBERS, TARGET * 0 + 4, "R² needs targets that differ; all 300 are 4"),
        ("accuracy", LOGITS[:0], TARGET[:0], "outputs: 0 samples are too few"),
        ("accuracy", LOGITS[:, :, None], TARGET, "outputs: give samples × classes"),
    ],
)
def test_what_is_not_defined_says_so_and_gives_no_number(name, outputs, target, message):
    with pytest.raises(DataError, match=f"^{name}: .*{message}"):
        measure([name], outputs, np.array(target))
    lenient = measure([name], outputs, np.array(target), strict=False)[name]
    assert (lenient.value, lenient.low, lenient.high) == (None, None, None)
    assert message in lenient.problem


def test_unknown_names_are_all_told_with_those_there_are():
    known = ", ".join(METRICS)
    for strict in (True, False):
        with pytest.raises(DataError) as caught:
            measure(["f1", "recal", "auc"], LOGITS, TARGET, strict)
        assert str(caught.value) == f"no metric is called 'recal' or 'auc'; did you mean 'recall'? There are {known}"
    with pytest.raises(DataError, match=r"no metric is called ''\. There are accuracy, top2"):
        measure([""], LOGITS, TARGET)


def test_batches_are_put_together():
    outputs = Outputs()
    with pytest.raises(DataError, match="there is no sample"):
        outputs.measure(["f1"])
    outputs.add(LOGITS[:100], TARGET[:100])
    outputs.add(LOGITS[100:], TARGET[100:])
    assert outputs.measure(["f1", "ece"]) == measure(["f1", "ece"], LOGITS, TARGET)


def test_the_public_names_are_there():
    assert [name for name in metrics.__all__ if getattr(metrics, name, None) is None] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = metrics.nothing
