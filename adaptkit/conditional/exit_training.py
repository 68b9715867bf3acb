"""What exits learn from: the targets, and the answer of the network behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.distillation.losses import hinton_loss
from adaptkit.distillation.teachers import answers
from adaptkit.training.losses import StepLoss


def exits_loss(alpha: float, temperature: float, early: float, teacher: nn.Module | None, last: bool) -> StepLoss:
    """Make the loss of a network with exits.

    L = L_last + Σ_i w L_i, where L_i = (1 − α) CE + α T² KL(last ‖ exit i), both softmaxes at temperature T, the last
    answer taken as it is; L_last is the same with a teacher in place of the last answer, or CE without one (joint
    training: Teerapittayanon et al. 2016, "BranchyNet", section III; self-distillation: Phuong and Lampert 2019,
    "Distillation-based training for multi-exit architectures").

    Args:
        alpha: Weight of the answer behind against the targets.
        temperature: T.
        early: w.
        teacher: What the last answer learns from; None leaves it the targets.
        last: Whether the last answer is trained at all.
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        final, *exits = model(x)
        losses = [early * hinton_loss(exit_, final.detach(), y, temperature, alpha) for exit_ in exits]
        if last and teacher is not None:
            losses.append(hinton_loss(final, answers(teacher, x), y, temperature, alpha))
        elif last:
            losses.append(F.cross_entropy(final, y))
        return torch.stack(losses).sum(), final if last else exits[-1]

    return loss


def best_temperature(logits: Tensor, y: Tensor) -> float:
    """Find the temperature that makes a classifier as sure as it is right: min over T of CE(logits / T, y).

    The minimum is unique, since the loss is convex in 1 / T (Guo et al. 2017, "On calibration of modern neural
    networks", section 4.2).

    Args:
        logits: N × classes.
        y: N class numbers.

    Returns:
        Between 1/20 and 20.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]] * 100)
        >>> round(best_temperature(logits, torch.tensor([0] * 75 + [1] * 25)), 2)
        1.82
    """
    low, high = 1 / 20, 20.0
    for _ in range(60):
        third = (high - low) / 3
        left, right = low + third, high - third
        if F.cross_entropy(logits * left, y) < F.cross_entropy(logits * right, y):
            high = right
        else:
            low = left
    return 2 / (low + high)
