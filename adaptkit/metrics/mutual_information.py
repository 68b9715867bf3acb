"""Mutual information of continuous variables: an estimate by nearest neighbours, a lower bound by contrast."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.neighbors import KDTree, NearestNeighbors
from torch import Tensor, nn

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.loading.batches import Batches
from adaptkit.metrics.arrays import Values, finite, rows, same_length
from adaptkit.metrics.estimate import Estimate, check_confidence
from adaptkit.metrics.intervals import around
from adaptkit.modes import evaluating
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings

_PARTS, _PARTITIONS = 5, 4
_FEWEST = 100
_FEWEST_BATCHES = 8
_CRITIC_FIT = FitSettings(optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2)


def ksg_mutual_information(
    x: Values, z: Values, neighbours: int = 3, *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Estimate I(X; Z) from nearest neighbours, for few dimensions (Kraskov et al. 2004, equation 8).

    I = ψ(k) + ψ(n) − mean of [ψ(nₓ + 1) + ψ(n_z + 1)], where nₓ and n_z count the samples that are nearer, in x and in
    z alone, than the k-th neighbour in (x, z); distances are the largest over coordinates. The coordinates should have
    like scales.

    It is the number of an estimator, not a bound. It cannot exceed ψ(n) − ψ(k), about log(n/k), however much Z tells,
    and falls short long before: by a sixth for three pairs of coordinates correlated 0.6 and 500 samples. Compare only
    at equal n, dimensions and k. A deterministic network has infinite I between continuous input and activations.

    Args:
        x: n × dₓ numbers, or n.
        z: n × d_z numbers, or n, of the same samples.
        neighbours: k.
        confidence: Of the interval, Student's around the value; its variance is that of the estimates on 5 disjoint
            parts, over 5, averaged over 4 partitions (Holmes and Nemenman 2019). It covers the spread over
            samples, not the bias.
        seed: Source of the partitions.

    Returns:
        In nats, from about 0 (a little below is possible) to ψ(n) − ψ(k).

    Raises:
        DataError: There are fewer than 100 samples, or too few for k, not equally many of both, NaN, or copies.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 2))
        >>> found = ksg_mutual_information(x[:, 0], 0.8 * x[:, 0] + 0.6 * x[:, 1])
        >>> found.low < -0.5 * math.log(1 - 0.8**2) < found.high
        True
    """
    check_confidence(confidence)
    if neighbours < 1:
        raise AdaptkitError(f"neighbours is at least 1; got {neighbours}")
    least = max(_FEWEST, _PARTS * 2 * (neighbours + 1))
    first = rows("x", x, least)
    second = rows("z", z, least)
    same_length("z", len(second), len(first))
    rng = np.random.default_rng(seed)
    variances = []
    for _ in range(_PARTITIONS):
        parts = np.array_split(rng.permutation(len(first)), _PARTS)
        variances.append(np.var([_ksg(first[part], second[part], neighbours) for part in parts], ddof=1) / _PARTS)
    return around(_ksg(first, second, neighbours), float(np.mean(variances)) ** 0.5, _PARTS - 1, confidence)


def info_nce(scores: Values) -> float:
    """Bound I(X; Z) from below by how well a critic tells true pairs (van den Oord et al. 2018, section 2.3).

    I ≥ mean over i of log( exp sᵢᵢ / (1/n Σⱼ exp sᵢⱼ) ) in expectation, on pairs that the critic was not trained on.

    Args:
        scores: n × n, sᵢⱼ = how well xᵢ fits zⱼ; the true pairs are on the diagonal.

    Returns:
        In nats, at most log n.

    Raises:
        DataError: It is no square of at least 2, or holds NaN.

    Example:
        >>> round(info_nce(100 * np.eye(8)), 4), round(math.log(8), 4), info_nce(np.zeros((8, 8)))
        (2.0794, 2.0794, 0.0)
    """
    table = torch.from_numpy(finite("scores", scores, 2))
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise DataError(f"scores: give every x against every z, n × n; got shape {tuple(table.shape)}")
    return float((table.diagonal() - table.logsumexp(1)).mean()) + math.log(len(table))


def info_nce_lower_bound(
    x: Values,
    z: Values,
    *,
    batch_size: int = 64,
    epochs: float = 60,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Bound I(X; Z) from below with a critic trained on one half of the samples and judged on the other.

    The critic is g(x)·h(z) with two networks of one hidden layer. `info_nce` is averaged over disjoint batches of the
    second half. A weak critic, or few samples, make the bound low, never wrong: `low` is what can be claimed, and only
    that way round. A small value does not show that little leaks.

    Args:
        x: n × anything, flattened.
        z: n × anything, flattened, of the same samples.
        batch_size: Pairs in a contrast; no bound exceeds its logarithm.
        epochs: Training of the critic.
        confidence: Of the interval, Student's over the batches of the second half.
        seed: Source of the halves, the first weights and the order.

    Returns:
        In nats, at most log(batch_size); below 0 where the critic learnt nothing that holds.

    Raises:
        DataError: The second half has fewer than 8 batches, there are not equally many of both, or NaN.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(600, 2))
        >>> found = info_nce_lower_bound(x[:, 0], x[:, 0] + 0.1 * x[:, 1], batch_size=16, epochs=20)
        >>> 0.5 < found.low < found.high < math.log(16)
        True
    """
    check_confidence(confidence)
    if batch_size < 2:
        raise AdaptkitError(f"a contrast needs at least 2 pairs; got batch_size={batch_size}")
    first, second = torch.from_numpy(rows("x", x)), torch.from_numpy(rows("z", z))
    same_length("z", len(second), len(first))
    if len(first) // 2 < _FEWEST_BATCHES * batch_size:
        raise DataError(
            f"x: {len(first)} samples are too few for half of them to fill {_FEWEST_BATCHES} batches of {batch_size}; "
            f"give at least {2 * _FEWEST_BATCHES * batch_size} or lower batch_size"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(first)))
    half = len(first) // 2
    left, right = (_standardized(part[order], len(first) - half) for part in (first, second))
    critic = _trained_critic(left[:-half], right[:-half], batch_size, epochs, seed)
    with evaluating(critic), torch.inference_mode():
        held_out = zip(torch.split(left[-half:], batch_size), torch.split(right[-half:], batch_size), strict=True)
        bounds = [info_nce(critic(a, b)) for a, b in held_out if len(a) == batch_size]
    deviation = float(np.std(bounds, ddof=1)) / len(bounds) ** 0.5
    return around(float(np.mean(bounds)), deviation, len(bounds) - 1, confidence)


def _ksg(x: np.ndarray, z: np.ndarray, neighbours: int) -> float:
    both = np.hstack([x, z])
    distances, _ = NearestNeighbors(n_neighbors=neighbours, metric="chebyshev").fit(both).kneighbors()
    radius = distances[:, -1]
    if not radius.all():
        raise DataError(
            f"x, z: {int((radius == 0).sum())} samples have {neighbours} or more copies, so there is no density to "
            "estimate; leave copies out, or use distance_correlation"
        )
    inside = np.nextafter(radius, 0)  # counts are of what is strictly nearer
    counts = [KDTree(part, metric="chebyshev").query_radius(part, inside, count_only=True) for part in (x, z)]
    digammas = torch.digamma(torch.from_numpy(np.stack(counts)).double()).sum(0)  # a sample counts itself: n + 1
    return float(torch.digamma(torch.tensor([neighbours, len(x)]).double()).sum() - digammas.mean())


def _standardized(values: Tensor, training: int) -> Tensor:
    """Scale by the mean and deviation of the first samples; what is constant in them becomes zero."""
    seen = values[:training]
    deviation = seen.std(0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation, torch.zeros_like(deviation))
    return ((values - seen.mean(0)) * scale).float()


class _Critic(nn.Module):
    """Scores every x against every z."""

    def __init__(self, x_size: int, z_size: int, hidden: int = 128, common: int = 32) -> None:
        super().__init__()
        self.of_x = nn.Sequential(nn.Linear(x_size, hidden), nn.ReLU(), nn.Linear(hidden, common))
        self.of_z = nn.Sequential(nn.Linear(z_size, hidden), nn.ReLU(), nn.Linear(hidden, common))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scores: Tensor = self.of_x(x) @ self.of_z(z).T
        return scores


def _trained_critic(x: Tensor, z: Tensor, batch_size: int, epochs: float, seed: int) -> _Critic:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = _Critic(x.shape[1], z.shape[1])

    def loss(model: nn.Module, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        table = model(left, right)
        return (table.logsumexp(1) - table.diagonal()).mean(), table

    batches = Batches(x, z, batch_size=batch_size, shuffle=True, seed=seed)
    fit(critic, batches, epochs=epochs, settings=_CRITIC_FIT, loss=loss, seed=seed)
    return critic
