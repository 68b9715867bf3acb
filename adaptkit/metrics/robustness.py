"""How much small changes of the input change the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.metrics.adversary import Attack, most_harm
from adaptkit.metrics.arrays import Values, finite, labels, scores
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.intervals import exact_share
from adaptkit.metrics.resampling import bootstrap
from adaptkit.metrics.running import outputs_of

_SMALLEST_KL = 1e-6


def kl_divergences(logits: Values, changed: Values) -> Tensor:
    """Compute KL(p ‖ q) = Σ p log(p / q) of each sample, p and q the softmax of either logits.

    Args:
        logits: n × classes.
        changed: The same shape.

    Returns:
        n values in nats, at least 0.

    Raises:
        DataError: The shapes differ, or there is NaN.

    Example:
        >>> kl_divergences(torch.zeros(1, 2), torch.tensor([[0.0, 9.0]])) > 3
        tensor([True])
    """
    first, second = (torch.from_numpy(scores(*each)) for each in (("logits", logits), ("changed", changed)))
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise DataError(f"logits, changed: give two arrays n × classes of one shape; got {shapes}")
    return _kl(first.log_softmax(1), second)


def kl_robustness(worst: Values, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Turn the largest KL found near each sample into ψ = 1 / mean of them.

    This is the harmonic mean of the samples' own ψ = 1 / max KL (Yu et al. 2019, "Interpreting and evaluating neural
    network robustness"), which one sample without any change would make infinite.

    Args:
        worst: n values of KL, at least 0, in nats.
        confidence: Of the interval, by bootstrap over samples.
        seed: Source of the bootstrap.

    Returns:
        1 / nats, from 0 to 10⁶: a mean below 10⁻⁶ nats counts as that.

    Raises:
        DataError: There are fewer than 2 samples, or NaN.

    Example:
        >>> kl_robustness(torch.tensor([0.5, 1.5])).value, kl_robustness(torch.zeros(9)).value
        (1.0, 1000000.0)
    """
    mean = bootstrap(np.mean, [finite("worst", worst, 2).ravel()], confidence=confidence, seed=seed)
    value, low, high = (1 / max(end, _SMALLEST_KL) for end in (mean.value, mean.high, mean.low))
    return Estimate(value, low, high, mean.method)


def kl_robustness_upper_bound(model: nn.Module, x: Tensor, attack: Attack, *, confidence: float = 0.95) -> Estimate:
    """Bound ψ = 1 / max over δ of KL(f(x) ‖ f(x + δ)) from above, by `most_harm`; see `kl_robustness`.

    The search finds at most the largest KL, so 1 / KL is at least ψ: the network may be less robust than this says,
    never more. A harder attack lowers it. A network that answers always the same scores highest: show accuracy, clean
    and robust, beside it, and compare at one attack only.

    Args:
        model: Gives logits.
        x: n inputs.
        attack: The ball and the effort.
        confidence: Of the interval, by bootstrap over samples; of this bound, not of ψ itself.

    Raises:
        DataError: There are fewer than 2 samples, or as `most_harm`.
        ModelError: As `most_harm`.

    Example:
        >>> flat, steep = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> flat.weight.data, steep.weight.data = torch.eye(2), 4 * torch.eye(2)
        >>> x = torch.rand(20, 2)
        >>> found = [kl_robustness_upper_bound(model, x, Attack(0.1)).value for model in (flat, steep)]
        >>> found[0] > found[1]
        True
    """
    _, worst = farthest(model, x, attack)
    return kl_robustness(worst.clamp(min=0), confidence=confidence, seed=attack.seed)


def farthest(model: nn.Module, x: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
    """Search the change of each input that moves the answer most, by `most_harm` on KL(f(x) ‖ f(x + δ)).

    Args:
        model: Gives logits.
        x: n inputs.
        attack: The ball and the effort.

    Returns:
        The changed inputs, and n divergences in nats.

    Raises:
        DataError: As `most_harm`.
        ModelError: As `most_harm`.
    """
    before = torch.from_numpy(scores("logits", outputs_of(model, x))).log_softmax(1)

    def harm(output: Tensor, samples: Tensor) -> Tensor:
        return _kl(before.to(output.device)[samples.to(before.device)], output.double())

    return most_harm(model, x, harm, attack)


def misleading(model: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> Tensor:
    """Search the change of each input that is likeliest to make the answer wrong, by `most_harm`.

    The harm is the margin of the best wrong class over the right one (Carlini and Wagner 2017, "Towards evaluating the
    robustness of neural networks", f₆), whose gradient does not fade where the softmax is sure.

    Args:
        model: Gives logits.
        x: n inputs.
        y: n class numbers.
        attack: The ball and the effort.

    Returns:
        The changed inputs.

    Raises:
        DataError: A label is no class, or as `most_harm`.
        ModelError: As `most_harm`.

    Example:
        >>> misleading(nn.Identity(), torch.tensor([[0.6, 0.4]]), torch.tensor([0]), Attack(0.1)).tolist()
        [[0.5, 0.5]]
    """
    logits = scores("logits", outputs_of(model, x))
    target = torch.from_numpy(labels("y", y, *logits.shape))

    def harm(output: Tensor, samples: Tensor) -> Tensor:
        return _wrong_margin(output, target.to(output.device)[samples.to(target.device)])

    return most_harm(model, x, harm, attack)[0]


@dataclass(frozen=True)
class RobustAccuracy:
    """How often a model is right, with and without an adversary.

    Args:
        clean: On the inputs as they are.
        robust: Where no change that was found makes it wrong.
    """

    clean: Estimate
    robust: Estimate


def robust_accuracy_upper_bound(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, *, confidence: float = 0.95
) -> RobustAccuracy:
    """Measure accuracy, and bound from above the accuracy under attack.

    A sample counts as robust where it is right and the search, `misleading`, finds no change that makes it wrong;
    another search may.

    Args:
        model: Gives logits.
        x: n inputs.
        y: n class numbers.
        attack: The ball and the effort.
        confidence: Of the intervals, exact (Clopper and Pearson 1934); of this attack, not of the worst there is.

    Raises:
        DataError: A label is no class, or as `most_harm`.
        ModelError: As `most_harm`.

    Example:
        >>> x = torch.tensor([[0.9, 0.1], [0.55, 0.45], [0.4, 0.6]])
        >>> found = robust_accuracy_upper_bound(nn.Identity(), x, torch.tensor([0, 0, 0]), Attack(0.1))
        >>> round(found.clean.value, 2), round(found.robust.value, 2)
        (0.67, 0.33)
    """
    changed = misleading(model, x, y, attack)
    target = torch.from_numpy(labels("y", y, len(x)))
    right, still = (_wrong_margin(outputs_of(model, each), target) < 0 for each in (x, changed))
    held = right & still
    return RobustAccuracy(*(exact_share(int(kind.sum()), len(kind), confidence) for kind in (right, held)))


def _kl(log_p: Tensor, other: Tensor) -> Tensor:
    return F.kl_div(other.log_softmax(1), log_p, reduction="none", log_target=True).sum(1)


def _wrong_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Subtract the right class's score from the best of the others; where they are equal, no class is right."""
    own = logits.gather(1, target[:, None])[:, 0]
    return logits.scatter(1, target[:, None], -torch.inf).amax(1) - own
