"""How well what a network learnt serves another task."""

from __future__ import annotations

import warnings

import numpy as np

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.arrays import Array, Values, labels, rows, scores
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.forms import are_probabilities
from adaptkit.metrics.intervals import exact_share
from adaptkit.metrics.resampling import reflected, resampled

DRAWS = 500
"""Of the bootstrap: each estimates P anew."""


def leep(probabilities: Values, y: Values, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Score how well a source model's answers tell the classes of a target task (LEEP; Nguyen et al. 2020).

    T = 1/n Σᵢ log( Σ_z P(yᵢ | z) θ(xᵢ)_z ), P(y | z) = P(y, z) / P(z), P(y, z) = 1/n Σ over i with yᵢ = y of θ(xᵢ)_z.
    It is the log-likelihood of a classifier that draws a source class and then a target class.

    It compares source models on one target task, not target tasks. P is estimated on the samples it is scored on: give
    many more samples than source × target classes.

    Args:
        probabilities: θ, n × source classes, rows sum to 1: the softmax, not logits.
        y: n class numbers of the target task; numbers that do not occur are no classes.
        confidence: Of the interval, by bootstrap over samples, P estimated anew each time. P fits the samples it is
            made of, and the copies in a draw still better: draws are reflected at the value, itself a little too high.
        seed: Source of the bootstrap.

    Returns:
        In nats, at most 0; at least minus the entropy of y.

    Raises:
        DataError: Rows do not sum to 1, y has one class, or there is NaN.

    Example:
        >>> theta = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
        >>> round(leep(theta, np.array([5, 5, 7])).value, 4)
        -0.2449
    """
    theta = scores("probabilities", probabilities, 2)
    if not are_probabilities(theta):
        raise DataError("probabilities: rows must be at least 0 and sum to 1; give the softmax of the logits")
    classes = two_or_more(labels("y", y, len(theta)))

    return reflected(resampled(leep_of, [theta, classes], DRAWS, seed), leep_of(theta, classes), confidence)


def transfer_accuracy(
    features: Values,
    y: Values,
    *,
    held_out: float = 0.3,
    strength: float = 1.0,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Measure how often a linear classifier on frozen features is right on samples that it was not trained on.

    The linear probe of Alain and Bengio 2017 ("Understanding intermediate layers using linear classifier probes"):
    logistic regression on standardized features, of a split in which each class has its share.

    Args:
        features: n × anything, flattened, such as the activations before the last layer.
        y: n class numbers of the target task.
        held_out: Share of the samples that are kept for the measurement.
        strength: C of scikit-learn, the inverse of the regularization; fixed, not tuned on what is measured.
        confidence: Of the interval, exact (Clopper and Pearson 1934); of this split's classifier.
        seed: Source of the split.

    Returns:
        From 0 to 1; compare with the share of the most frequent class.

    Raises:
        DataError: y has one class, a class has one sample, or a side of the split has fewer samples than classes; NaN.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 5))
        >>> transfer_accuracy(x, (x[:, 0] > 0).astype(int)).low > 0.8
        True
    """
    # Imported here: LEEP is in the table of metrics, which whoever reads a recipe loads.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not (0 < held_out < 1 and strength > 0):
        raise AdaptkitError(
            f"held_out is between 0 and 1, strength above 0; got held_out={held_out}, strength={strength}"
        )
    flat = rows("features", features, 2)
    classes = two_or_more(labels("y", y, len(flat)))
    counts = np.bincount(classes)
    kept = round(held_out * len(flat))
    if int(counts.min()) < 2 or min(kept, len(flat) - kept) < len(counts):
        raise DataError(
            f"y: {len(flat)} samples of {len(counts)} classes, {int(counts.min())} of the rarest, cannot be split; "
            "give at least 2 of each class, and more samples on each side than classes"
        )
    split = train_test_split(flat, classes, test_size=kept, stratify=classes, random_state=seed)
    seen, unseen, seen_classes, unseen_classes = split
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly there is as good
        probe.fit(seen, seen_classes)
    return exact_share(int((probe.predict(unseen) == unseen_classes).sum()), len(unseen), confidence)


def leep_of(theta: Array, classes: Array) -> float:
    """Compute the score itself, of probabilities and classes numbered from 0 without gaps.

    Example:
        >>> leep_of(np.eye(2), np.array([0, 1]))
        0.0
    """
    joint = np.zeros((int(classes.max()) + 1, theta.shape[1]))
    np.add.at(joint, classes, theta)
    given = joint / joint.sum(0).clip(min=np.finfo(np.float64).tiny)  # a source class that nobody has tells nothing
    return float(np.log((given[classes] * theta).sum(1)).mean())


def two_or_more(y: Array) -> Array:
    """Number the classes that occur from 0 on."""
    found, numbered = np.unique(y, return_inverse=True)
    if len(found) < 2:
        raise DataError(f"y: all samples are of class {int(found[0])}; give samples of at least 2 classes")
    return numbered
