"""Losses that pull a student towards a teacher."""

from torch import Tensor
from torch.nn import functional as F


def hinton_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Distillation loss of Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.

    L = α T² KL(softmax(t / T) ‖ softmax(s / T)) + (1 - α) CE(s, y), averaged over the batch. T² keeps the size of
    the first term's gradient independent of T.

    Args:
        student_logits: s, N × classes.
        teacher_logits: t, N × classes.
        target: y, class numbers.
        temperature: T, above 0; high values show more of what the teacher knows about the wrong classes.
        alpha: α, from 0 (the targets only) to 1 (the teacher only).
        label_smoothing: Share of the target spread over all classes in the second term.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> hinton_loss(logits, logits, target, temperature=4.0, alpha=1.0).item()
        0.0
    """
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(student_logits, target, label_smoothing=label_smoothing)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Squared error of the student's features relative to the size of the teacher's: ‖s − t‖² / ‖t‖².

    The hint of Romero et al. 2015, "FitNets: hints for thin deep nets", section 2.2, made free of the scale of the
    layer, so that layers can be added up: 0 is a perfect copy, 1 what a student of zeros would get.

    Args:
        student_features: s, of any shape, after the regressor.
        teacher_features: t, of the same shape.

    Example:
        >>> import torch
        >>> hint_loss(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])).item()
        0.6399999856948853
    """
    return (student_features - teacher_features).square().sum() / teacher_features.square().sum().clamp_min(1e-12)
