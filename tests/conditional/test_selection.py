"""The parts of a selector against slow loops and scikit-learn."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import KNeighborsClassifier

from adaptkit.conditional.image_features import ImageFeatures
from adaptkit.conditional.neighbours import Neighbours, best_k, nearest
from adaptkit.conditional.premodel import make_premodel
from adaptkit.conditional.selection import best_metric, fastest_right, greedy_set, uncorrelated
from adaptkit.errors import ModelError


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 7, 5), (4, 2, 3)])
def test_features_against_a_loop(shape):
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    features = ImageFeatures.of(x)
    levels = [np.quantile([image.mean(0) for image in x], k / 8) for k in range(1, 8)]
    found = features.compute(x)
    assert found.shape == (5, len(features.names))
    for image, row in zip(x, found, strict=True):
        b = image.mean(0)
        wanted = [*(channel.mean() for channel in image), *(channel.std() for channel in image)]
        wanted += [np.abs(np.diff(b, axis=1)).mean(), np.abs(np.diff(b, axis=0)).mean()]
        wanted += [(b < level).mean() for level in levels]
        tall, wide = -(-shape[1] // 4), -(-shape[2] // 4)
        for i in range(0, shape[1] - tall + 1, tall):
            wanted += [b[i : i + tall, j : j + wide].mean() for j in range(0, shape[2] - wide + 1, wide)]
        np.testing.assert_allclose(row, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 1, 8), (4, 4)])
def test_what_is_no_image(shape):
    with pytest.raises(ModelError, match="selector looks at images, C × H × W of at least 2 × 2 pixels"):
        ImageFeatures.of(np.zeros((2, *shape), np.float32))


@pytest.mark.parametrize("chosen", [[0], [1, 4, 9], [2, 3, 5, 6, 7, 8, 10, 20]])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_votes_are_those_of_scikit_learn(chosen, k):
    random = np.random.default_rng(k)
    stored, x = (random.standard_normal((n, 1, 8, 8)).astype(np.float32) for n in (120, 80))
    features = ImageFeatures.of(stored)
    found, asked = (features.compute(images)[:, chosen].astype(np.float64) for images in (stored, x))
    mean, deviation = found.mean(0), found.std(0)
    points, samples = (found - mean) / deviation, (asked - mean) / deviation
    says = random.integers(0, 2, (120, 2))
    proto = make_premodel(features, chosen, mean, deviation, [Neighbours(points, says, k)])
    votes = ort.InferenceSession(proto.SerializeToString()).run(None, {"input": x})[0]
    distances = np.sort(((samples[:, None] - points) ** 2).sum(2), axis=1)
    apart = distances[:, k] - distances[:, k - 1] > 1e-4
    assert apart.mean() > 0.5
    for column in range(2):
        learned = KNeighborsClassifier(k, algorithm="brute").fit(points, says[:, column])
        np.testing.assert_allclose(votes[apart, column], learned.predict_proba(samples[apart])[:, 1], atol=1e-6)
    np.testing.assert_allclose(Neighbours(points, says, k).votes(samples)[apart], votes[apart], atol=1e-6)


def test_of_equally_near_ones_the_first_stored_is_asked():
    images = np.zeros((6, 1, 4, 4), np.float32)
    images[3:] = 1
    features = ImageFeatures.of(images)
    points = np.array([[0.0]] * 3 + [[1.0]] * 3)
    says = np.array([[1], [0], [0], [0], [1], [1]])
    proto = make_premodel(features, [0], np.zeros(1), np.ones(1), [Neighbours(points, says, k) for k in (1, 2)])
    votes = ort.InferenceSession(proto.SerializeToString()).run(None, {"input": images[[0, 5]]})[0]
    assert votes.tolist() == [[1, 0.5], [0, 0.5]]
    assert Neighbours(points, says, 2).votes(np.array([[0.0], [1.0]])).tolist() == [[0.5], [0.5]]


@given(arrays(bool, st.tuples(st.integers(1, 20), st.just(3))))
def test_the_fastest_that_is_right(right):
    for row, place in zip(right, fastest_right(right, [0, 1, 2]), strict=True):
        assert place == next((model for model in range(3) if row[model]), 0)


@given(arrays(float, st.tuples(st.integers(1, 20), st.just(3)), elements=st.sampled_from([0.1, 0.5, 0.9])))
def test_the_best_by_metric(truth):
    for row, place in zip(truth, best_metric(truth, [2, 0]), strict=True):
        assert place == (1 if row[0] > row[2] else 0)


def test_models_are_added_while_they_gain():
    right = np.zeros((100, 4), bool)
    right[:60, 0] = right[:61, 1] = right[40:90, 2] = True
    right[:, 3] = True

    def label(models):
        return fastest_right(right, models)

    assert greedy_set(label, [0, 1, 2], 3, 0.05) == [0, 2, 3]
    assert greedy_set(label, [0, 1, 2], 3, 0.005) == [0, 1, 2, 3]
    assert greedy_set(label, [0, 1, 2], 3, 0.95) == [3]
    assert greedy_set(label, [], 3, 0.05) == [3]


@given(arrays(float, (12, 5), elements=st.floats(-3, 3).map(lambda v: round(v, 1))), st.floats(0.1, 0.9))
def test_chosen_features_are_not_alike(features, limit):
    chosen = uncorrelated(features, np.arange(12) % 2, limit)
    assert chosen == sorted(set(chosen))
    for place, one in enumerate(chosen):
        assert features[:, one].std() > 0
        for other in chosen[:place]:
            assert abs(np.corrcoef(features[:, one], features[:, other])[0, 1]) <= limit + 1e-9


def test_the_number_of_neighbours_against_a_loop():
    random = np.random.default_rng(0)
    points = random.standard_normal((60, 3))
    says = (points[:, :1] + 0.8 * random.standard_normal((60, 1)) > 0).astype(int)
    judged = best_k(points, says, (1, 3, 7, 15, 500), 5, seed=1)
    errors, hits = {}, {}
    for k in (1, 3, 7, 15):
        errors[k] = hits[k] = 0
        for held in np.array_split(np.random.default_rng(1).permutation(60), 5):
            for sample in held:
                rest = [other for other in range(60) if other not in held]
                rest.sort(key=lambda other, sample=sample: np.linalg.norm(points[other] - points[sample]))
                share = np.mean([says[other] for other in rest[:k]])
                errors[k] += (share - says[sample, 0]) ** 2
                hits[k] += (share > 0.5) == says[sample, 0]
    assert judged.k == min(errors, key=errors.get)
    assert judged.right == pytest.approx(hits[judged.k] / 60)
    assert judged.blind == pytest.approx(max(says.mean(), 1 - says.mean()))


def test_few_samples_ask_few():
    assert best_k(np.arange(6.0)[:, None], np.ones((6, 1), int), (50, 70), 3, 0).k == 4
    assert nearest(np.array([[0.0], [2.0], [1.0]]), np.array([[0.9]]), 2).tolist() == [[2, 0]]
