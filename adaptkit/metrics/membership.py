"""Membership inference: can an attacker tell which samples a model was trained on?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.loading.batches import Batch, mixed_seed
from adaptkit.metrics.arrays import Array, Values, as_array, finite, labels, same_length, scores
from adaptkit.metrics.bounds import share_bound
from adaptkit.metrics.estimate import Estimate, check_confidence
from adaptkit.metrics.intervals import exact_share
from adaptkit.metrics.running import outputs_of

Train: TypeAlias = Callable[[Tensor, Tensor, int], nn.Module]
"""(x, y, seed) -> a model trained on them."""

_FEWEST_ALARMS = 10
"""False alarms to expect at a rate, below which its threshold is a matter of a few samples."""


def membership_confidence(logits: Values, y: Values) -> Tensor:
    """Compute φ = log(p_y / (1 − p_y)) from logits, without rounding at p_y = 1 (Carlini et al. 2022).

    Args:
        logits: n × classes, before the softmax.
        y: n class numbers.

    Returns:
        n values, z_y − log Σ over the other classes of exp z_j.

    Raises:
        DataError: A shape or a class is wrong, or there is NaN.

    Example:
        >>> membership_confidence(torch.tensor([[0.0, 0.0], [99.0, 0.0]]), torch.tensor([0, 0]))
        tensor([ 0., 99.], dtype=torch.float64)
    """
    table = torch.from_numpy(scores("logits", logits))
    target = torch.from_numpy(labels("y", y, *table.shape))[:, None]
    others = table.scatter(1, target, -torch.inf)
    return table.gather(1, target)[:, 0] - others.logsumexp(1)


def lira_offline(confidences: Values, shadows: Values, out: Values) -> Tensor:
    """Score how likely samples were trained on, from models that were not (Carlini et al. 2022).

    The offline attack of "Membership inference attacks from first principles": (φ − μ) / σ, where μ is the mean of φ
    over the shadow models that were not trained on the sample, and σ the pooled deviation of φ around it, one for all
    samples: few shadow models do not tell a deviation for each. The paper's Λ is Φ of this, which orders samples alike,
    but is 1 for all that are far out, where low false positive rates are.

    Args:
        confidences: n values of `membership_confidence` of the model under attack.
        shadows: S × n, those of the shadow models; where `out` is false they are not read.
        out: S × n truth values: shadow model s was not trained on sample i.

    Returns:
        n scores; higher means more likely a member.

    Raises:
        DataError: A sample has no shadow model that was not trained on it, none has two, shapes differ, or NaN.

    Example:
        >>> lira_offline(np.array([3.0, 0.0]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.ones((2, 2), bool))
        tensor([3., 0.], dtype=torch.float64)
    """
    target = torch.from_numpy(finite("confidences", confidences))
    chosen, given = (torch.from_numpy(as_array(each)) for each in (out, shadows))
    if target.ndim != 1 or chosen.shape != given.shape or chosen.shape[1:] != target.shape:
        raise DataError(
            f"give n confidences, and shadows and out of S × n; got {tuple(target.shape)}, "
            f"{tuple(given.shape)} and {tuple(chosen.shape)}"
        )
    chosen = chosen.bool()
    known = torch.from_numpy(finite("shadows", torch.where(chosen, given.double(), 0.0)))
    count = chosen.sum(0)
    if int(count.min()) == 0 or int(count.max()) < 2:
        raise DataError(
            f"{int((count == 0).sum())} samples have no shadow model that was not trained on them, and "
            f"{int((count > 1).sum())} have two or more; train more shadow models"
        )
    mean = known.sum(0) / count
    spread = torch.where(chosen, known - mean, 0.0).square().sum()
    deviation = (spread / (count - 1).sum()).sqrt()
    if deviation == 0:
        raise DataError("all shadow models give the same confidences; train them on different samples, by other seeds")
    return (target - mean) / deviation


def tpr_at_fpr(members: Values, non_members: Values, fpr: float, confidence: float = 0.95) -> Estimate:
    """Estimate the share of members that are found where a share `fpr` of non-members is accused (Carlini et al. 2022).

    Balanced accuracy and AUC hide a leak of few samples; this is what to report, at 0.1 % and 1 %.

    Args:
        members: Scores of samples that were trained on; higher means more likely a member.
        non_members: Scores of others.
        fpr: False positive rate, such as 0.001.
        confidence: How often the interval holds the rate at a true FPR of `fpr`, at least. It is exact: bounds of the
            threshold by order statistics of the non-members, at each the bound of Clopper and Pearson for the members,
            half of the error for either.

    Returns:
        The value is counted at the lowest threshold that at most a share `fpr` of the non-members exceeds; no attack
        is no better than `fpr`.

    Raises:
        DataError: There are fewer than 10 / fpr non-members, no member, or NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = tpr_at_fpr(rng.normal(size=2000) + 2, rng.normal(size=2000), 0.01)
        >>> found.low < 0.372 < found.high
        True
    """
    check_confidence(confidence)
    if not 0 < fpr < 1:
        raise AdaptkitError(f"fpr is between 0 and 1, such as 0.001; got {fpr}")
    inside, outside = finite("members", members).flatten(), finite("non_members", non_members).flatten()
    require_enough(len(outside), fpr)
    ranked = np.sort(outside)[::-1]
    found = _share_above(inside, float(ranked[int(fpr * len(outside) + 1e-9)]))
    side = 1 - (1 - confidence) / 4
    strict, loose = _ranks(len(outside), fpr, side)
    surely = int((inside > ranked[strict - 1]).sum()) if strict else 0
    perhaps = int((inside >= ranked[loose - 1]).sum()) if loose else len(inside)
    low = 1 - share_bound(len(inside) - surely, len(inside), side) if strict else 0.0
    return Estimate(found, low, share_bound(perhaps, len(inside), side), "exact, of the threshold too")


def require_enough(non_members: int, fpr: float) -> None:
    """Refuse so few non-members that a false positive rate would rest on less than ten of them.

    Raises:
        DataError: There are fewer than 10 / fpr.
    """
    needed = ceil(_FEWEST_ALARMS / fpr - 1e-9)
    if non_members < needed:
        raise DataError(
            f"non_members: {non_members} samples are too few for a false positive rate of {fpr:g}; give at least "
            f"{needed}, or ask for a rate of {_FEWEST_ALARMS / max(non_members, 1):.2g} or more"
        )


@dataclass(frozen=True)
class RatesAt:
    """How often a threshold finds members and accuses others.

    Args:
        true_positive: Share of the members above it, with the exact interval.
        false_positive: Share of the non-members above it, with the exact interval.
    """

    true_positive: Estimate
    false_positive: Estimate


def rates_at(threshold: float, members: Values, non_members: Values, confidence: float = 0.95) -> RatesAt:
    """Count both rates at a threshold that was chosen elsewhere: an attacker has it from his shadow models.

    Args:
        threshold: Scores above it are taken for members.
        members: Scores of samples that were trained on.
        non_members: Scores of others.
        confidence: Of each of the two intervals (Clopper and Pearson 1934).

    Raises:
        DataError: There is no sample of a kind, or NaN.

    Example:
        >>> found = rates_at(0.5, np.array([1.0, 0.0]), np.zeros(4))
        >>> found.true_positive.value, found.false_positive.value
        (0.5, 0.0)
    """
    above = [
        exact_share(int((kind > threshold).sum()), kind.size, confidence)
        for kind in (finite("members", members), finite("non_members", non_members))
    ]
    return RatesAt(*above)


def lira_attack(
    model: nn.Module,
    train: Train,
    members: Batch,
    non_members: Batch,
    *,
    shadows: int = 16,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attack a model with shadow models, each trained on as many samples, drawn from members and non-members alike.

    A shadow model serves the samples that it did not draw. The scores are for `tpr_at_fpr`.

    Args:
        model: Gives logits of n × classes.
        train: Maps (x, y, seed) to a model trained as the one under attack was.
        members: (x, y) that the model was trained on, all of them.
        non_members: (x, y) of the same kind that it was not trained on.
        shadows: S; 16 do for the pooled deviation.
        seed: Source of the draws, and of the seeds that `train` is given.

    Returns:
        The scores of `lira_offline` of the members and of the non-members.

    Raises:
        DataError: A sample was drawn by every shadow model, or as `membership_confidence`.

    Example:
        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> def nearest(x, y, seed):
        ...     means = torch.stack([x[y == label].mean(0) for label in range(2)])
        ...     layer = nn.Linear(3, 2, bias=False)
        ...     layer.weight.data = means
        ...     return layer
        >>> model = nearest(x[:20], y[:20], 0)
        >>> inside, outside = lira_attack(model, nearest, (x[:20], y[:20]), (x[20:], y[20:]), shadows=8)
        >>> inside.shape, outside.shape
        (torch.Size([20]), torch.Size([20]))
    """
    seen = shadow_confidences(train, members, non_members, shadows=shadows, seed=seed)
    x, y = (torch.cat([inside, outside]) for inside, outside in zip(members, non_members, strict=True))
    found = lira_offline(membership_confidence(outputs_of(model, x), y), *seen)
    return found[: len(members[1])], found[len(members[1]) :]


def shadow_confidences(
    train: Train, members: Batch, non_members: Batch, *, shadows: int = 16, seed: int = 0
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Train shadow models and ask them about all samples, the members first; the arguments are those of `lira_attack`.

    Returns:
        S × n values of `membership_confidence`, and S × n truth values: shadow model s was not trained on sample i.

    Raises:
        DataError: As `lira_attack`.
    """
    if shadows < 2:
        raise AdaptkitError(f"the attack needs at least 2 shadow models; got shadows={shadows}")
    for name, (inputs, target) in (("members", members), ("non_members", non_members)):
        same_length(f"{name}: x", len(inputs), len(target))
    x, y = (torch.cat([inside, outside]) for inside, outside in zip(members, non_members, strict=True))
    drawn = _draws(len(y), len(members[1]), shadows, seed)
    seen = []
    for number, chosen in enumerate(torch.from_numpy(drawn)):
        shadow = train(x[chosen], y[chosen], mixed_seed(seed, number))
        seen.append(membership_confidence(outputs_of(shadow, x), y))
    return torch.stack(seen), ~drawn


def _share_above(values: Array, threshold: float) -> float:
    return float((values > threshold).mean())


def _ranks(samples: int, rate: float, side: float) -> tuple[int, int]:
    """Give the ranks of the non-members' scores between which the threshold of a true rate lies, 0 where unbounded.

    The true rate at the j-th largest score is that of the j-th order statistic, so that counts which Clopper and
    Pearson hold for too few, or too many, to be of this rate are ranks on either side of it.
    """
    ranks = range(1, samples + 1)
    strict = bisect_right(ranks, rate, key=lambda rank: share_bound(rank - 1, samples, side))
    loose = bisect_left(ranks, rate, key=lambda rank: 1 - share_bound(samples - rank, samples, side)) + 1
    return strict, loose if loose <= samples else 0


def _draws(samples: int, size: int, shadows: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the samples of each shadow model, the least drawn first, so that all are left out about equally."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((shadows, samples), bool)
    for row in drawn:
        row[np.lexsort((rng.random(samples), drawn.sum(0)))[:size]] = True
    return drawn
