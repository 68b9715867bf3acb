"""What activations sent over a link ("smashed data") tell about the input, measured on arrays of both.

Lead with what an attacker gets, `inversion.inversion_attack`; these figures say how two models compare.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.arrays import Values, rows, same_length
from adaptkit.metrics.estimate import Estimate, check_confidence
from adaptkit.metrics.intervals import around
from adaptkit.metrics.mutual_information import ksg_mutual_information

_FEWEST = 50
_GROUPS = 20


def smashed_mutual_information(
    inputs: Values,
    activations: Values,
    dimensions: int = 5,
    neighbours: int = 3,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate how much activations tell about inputs, both reduced to their principal components.

    I(P X; Q Z) by `ksg_mutual_information`, where P and Q give the first components, scaled to variance 1. What is
    reduced knows less, so in the limit of many samples it is at most I(X; Z); with few, it is an estimator's number.

    Args:
        inputs: n × anything, flattened.
        activations: n × anything, flattened, of the same samples.
        dimensions: Components of each; fewer where it has no more that vary.
        neighbours: k.
        confidence: Of the interval of `ksg_mutual_information`, which covers the spread over samples, not the bias.
        seed: Source of its partitions.

    Returns:
        In nats, from about 0 to about log(n / k). It is not a share: it has no upper end at 1.

    Raises:
        DataError: One of them does not vary, or as `ksg_mutual_information`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 8))
        >>> early = smashed_mutual_information(x, x[:, :4], dimensions=2)
        >>> late = smashed_mutual_information(x, x[:, :4] * [1, 0, 0, 0], dimensions=2)
        >>> early.value > late.value
        True
    """
    if dimensions < 1:
        raise AdaptkitError(f"dimensions is at least 1; got {dimensions}")
    first = principal_components("inputs", inputs, dimensions)
    second = principal_components("activations", activations, dimensions)
    same_length("activations", len(second), len(first))
    return ksg_mutual_information(first, second, neighbours, confidence=confidence, seed=seed)


def principal_components(name: str, values: Values, dimensions: int) -> Tensor:
    """Give the first principal components, scaled to variance 1.

    Args:
        name: What errors call the values.
        values: n × anything, flattened.
        dimensions: How many, at most.

    Raises:
        DataError: All samples are the same, there are fewer than 2, or NaN.

    Example:
        >>> principal_components("x", torch.eye(9), 3).shape, principal_components("x", torch.arange(9), 3).shape
        (torch.Size([9, 3]), torch.Size([9, 1]))
    """
    flat = torch.from_numpy(rows(name, values, 2))
    left, sizes, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    scale = float(flat.abs().max()) * len(flat) ** 0.5
    kept = min(dimensions, int((sizes > 1e-9 * scale).sum()))
    if kept == 0:
        raise DataError(f"{name}: all samples are the same, so there is nothing to measure; give samples that vary")
    components: Tensor = left[:, :kept] * len(flat) ** 0.5
    return components


def distance_correlation(x: Values, z: Values, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Measure dependence of any kind by distances between samples (Székely and Rizzo 2013, bias-corrected).

    R* = (A·B) / √((A·A)(B·B)), where A and B are the U-centred matrices of Euclidean distances in x and in z and
    A·B = Σ over i ≠ j of Aᵢⱼ Bᵢⱼ. It estimates the *squared* distance correlation of Székely et al. 2007. NoPeek
    (Vepakomma et al. 2020) minimises the uncorrected one, which comes near 1 for independent images already.

    Args:
        x: n × anything, flattened.
        z: n × anything, flattened, of the same samples. The time is that of n² distances.
        confidence: Of the interval, Student's around the value, its variance by a jackknife that leaves out 20 groups
            in turn; narrower than it says where x and z are independent.
        seed: Source of the groups.

    Returns:
        From −1 to 1; 0 on average for independent x and z, 1 where z is x moved, turned or scaled.

    Raises:
        DataError: There are fewer than 50 samples, not equally many of both, NaN, or one of them does not vary.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> round(distance_correlation(x, 2 * x + 1).value, 6), abs(distance_correlation(x[:100], x[100:]).value) < 0.1
        (1.0, True)
    """
    check_confidence(confidence)
    first, second = (torch.from_numpy(rows(*each, _FEWEST)) for each in (("x", x), ("z", z)))
    same_length("z", len(second), len(first))
    a, b = (_distances(values) for values in (first, second))
    for name, distances in (("x", a), ("z", b)):
        if not distances.any():
            raise DataError(f"{name}: all samples are the same, so there is nothing to measure; give samples that vary")
    groups = torch.from_numpy(np.random.default_rng(seed).permutation(len(a)) % _GROUPS)
    left_out = [_corrected(a[kept][:, kept], b[kept][:, kept]) for kept in (groups != i for i in range(_GROUPS))]
    deviation = float(np.std(left_out)) * (_GROUPS - 1) ** 0.5
    found = around(_corrected(a, b), deviation, _GROUPS - 1, confidence)
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def _distances(values: Tensor) -> Tensor:
    # Without the matrix product, whose rounding gives copies a distance.
    return torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")


def _corrected(a: Tensor, b: Tensor) -> float:
    a, b = _u_centred(a), _u_centred(b)
    scale = float(((a * a).sum() * (b * b).sum()).sqrt())
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def _u_centred(distances: Tensor) -> Tensor:
    n = len(distances)
    sums = distances.sum(0) / (n - 2)
    centred = distances - sums[:, None] - sums[None, :] + distances.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
