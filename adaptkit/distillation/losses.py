"""Losses that pull a student towards a teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptkit.training.losses import are_numbers, target_loss

# The smallest deviation of probabilities that a correlation divides by; it keeps the gradient of equal ones finite.
_SMALLEST_DEVIATION = 1e-4


def hinton_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Distillation loss of Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.

    L = α T² KL(softmax(t / T) ‖ softmax(s / T)) + (1 - α) CE(s, y), averaged over the batch, and over the places of
    models that classify every one (characters, pixels). T² keeps the first term's gradient independent of T.

    Args:
        student_logits: s, N × classes or N × classes × places….
        teacher_logits: t, of the same shape.
        target: y, class numbers, N or N × places….
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
    soft = soft / student_logits[0, 0].numel()
    hard = F.cross_entropy(student_logits, target, label_smoothing=label_smoothing)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def numbers_loss(student: Tensor, teacher: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Squared errors against the teacher's numbers and the targets: α MSE(s, t) + (1 − α) MSE(s, y).

    What `hinton_loss` is for classes, for a model that gives one number a sample.

    Args:
        student: s, N or N × 1.
        teacher: t, of the same shape.
        target: y, N or N × 1.
        alpha: α, from 0 (the targets only) to 1 (the teacher only).

    Example:
        >>> import torch
        >>> numbers_loss(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0]), alpha=0.5).item()
        5.0
    """
    return alpha * F.mse_loss(student, teacher) + (1 - alpha) * target_loss(student, target)


def soft_loss(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float, alpha: float, label_smoothing: float = 0.0
) -> Tensor:
    """Weigh a teacher against the targets: `numbers_loss` where these are numbers, `hinton_loss` where classes."""
    if are_numbers(target):
        return numbers_loss(student, teacher, target, alpha)
    return hinton_loss(student, teacher, target, temperature, alpha, label_smoothing)


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


def decoupled_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    target_weight: float,
    other_weight: float,
) -> Tensor:
    r"""Decoupled distillation of Zhao et al. 2022, "Decoupled knowledge distillation", section 3.3.

    L = T² (α TCKD + β NCKD), averaged over the batch. TCKD is the divergence of (p_y, 1 - p_y), the target against all
    the rest; NCKD that of the softmax over the other classes alone. Hinton's loss is TCKD + (1 - p_y) NCKD with the
    teacher's p_y: where the teacher is sure, it hides what the teacher knows of the other classes.

    Args:
        student_logits: N × classes.
        teacher_logits: N × classes.
        target: y, class numbers.
        temperature: T, above 0.
        target_weight: α.
        other_weight: β.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
        >>> decoupled_loss(logits, logits, target, temperature=4.0, target_weight=1.0, other_weight=8.0).item()
        0.0
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature
    of_target = _divergence(_target_or_not(student, target), _target_or_not(teacher, target))
    of_others = _divergence(_without(student, target).log_softmax(1), _without(teacher, target).log_softmax(1))
    return temperature**2 * (target_weight * of_target + other_weight * of_others)


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, inter_weight: float, intra_weight: float
) -> Tensor:
    r"""Relations instead of values: Huang et al. 2022, "Knowledge distillation from a stronger teacher".

    L = T² (β · mean over samples of 1 - ρ(rows) + γ · mean over classes of 1 - ρ(columns)), where ρ is Pearson's
    correlation of the softened probabilities of student and teacher: the order and spacing of the classes within a
    sample, and of the samples within a class. A student may be less sure than its teacher at no cost.

    Args:
        student_logits: N × classes.
        teacher_logits: N × classes.
        temperature: T, above 0.
        inter_weight: β, of the relation between classes.
        intra_weight: γ, of the relation between samples.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> round(dist_loss(logits, logits, temperature=1.0, inter_weight=2.0, intra_weight=2.0).item(), 5)
        0.0
    """
    student, teacher = (student_logits / temperature).softmax(1), (teacher_logits / temperature).softmax(1)
    inter = 1 - _correlation(student, teacher, dim=1).mean()
    intra = 1 - _correlation(student, teacher, dim=0).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def attention_map(features: Tensor) -> Tensor:
    """Where a layer looks: the sum of squares over its channels at each place, of length 1 (Zagoruyko and Komodakis).

    Args:
        features: N × C × … of images, N × tokens × C of sequences; images N × H × W × C are to be permuted before.

    Returns:
        N × places.

    Example:
        >>> attention_map(torch.tensor([[[[3.0, 1.0]], [[0.0, 2.0]]]])).shape
        torch.Size([1, 2])
    """
    channels = 2 if features.dim() == 3 else 1
    return F.normalize(features.square().sum(channels).flatten(1), dim=1)


def attention_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Mean squared difference of the attention maps of two layers: mean of (Q_s / ‖Q_s‖ − Q_t / ‖Q_t‖)².

    Zagoruyko and Komodakis 2017, "Paying more attention to attention", section 3.1, with p = 2; the channels
    of the two layers need not agree, the places must.

    Args:
        student_features: N × C × … of images, N × tokens × C of sequences.
        teacher_features: The same places, any channels.

    Example:
        >>> one_channel, two_channels = torch.ones(1, 1, 4, 4), torch.ones(1, 2, 4, 4)
        >>> attention_loss(one_channel, two_channels).item()
        0.0
    """
    return (attention_map(student_features) - attention_map(teacher_features)).square().mean()


def lifelong_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    old_classes: int,
    temperature: float,
    weight: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Learning without forgetting (Li and Hoiem 2016), section 3.

    L = CE(new outputs, y) + λ KL(teacher ‖ student) over the old outputs at temperature T, averaged over the batch. The
    samples are of the new task; what the teacher says about them stands for the old one.

    Args:
        student_logits: N × classes, those of the old task first.
        teacher_logits: N × at least `old_classes`.
        target: y, class numbers of the new task, from `old_classes` on.
        old_classes: How many outputs are of the old task.
        temperature: T, above 0.
        weight: λ, what the old task counts against the new one.
        label_smoothing: Share of the target spread over the classes of the new task.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0, 9.0, 9.0]]), torch.tensor([2])
        >>> round(lifelong_loss(logits, logits[:, :2], target, old_classes=2, temperature=2.0, weight=1.0).item(), 3)
        0.693
    """
    ours, theirs = (logits[:, :old_classes] / temperature for logits in (student_logits, teacher_logits))
    old = _divergence(ours.log_softmax(1), theirs.log_softmax(1))
    new = F.cross_entropy(student_logits[:, old_classes:], target - old_classes, label_smoothing=label_smoothing)
    return new + weight * old


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of log probabilities, averaged over the batch."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _target_or_not(logits: Tensor, target: Tensor) -> Tensor:
    """Log probabilities of the target and of all other classes together, N × 2."""
    log_sum = logits.logsumexp(1, keepdim=True)
    of_target = logits.gather(1, target[:, None])
    return torch.cat([of_target, _without(logits, target).logsumexp(1, keepdim=True)], dim=1) - log_sum


def _without(logits: Tensor, target: Tensor) -> Tensor:
    """The logits of the other classes, N × (classes - 1)."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], False)
    return logits[others].reshape(len(logits), -1)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    centred_a, centred_b = (x - x.mean(dim, keepdim=True) for x in (a, b))
    return F.cosine_similarity(centred_a, centred_b, dim=dim, eps=_SMALLEST_DEVIATION)
