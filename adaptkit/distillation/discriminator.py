"""A discriminator of outputs: it learns to tell a teacher's from a student's, and the student not to be told."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


class Discriminator(nn.Module):
    """Say of outputs whether they are the teacher's, and of which class the sample is.

    Args:
        classes: Size of an output.
        width: Size of the two hidden layers.

    Example:
        >>> import torch
        >>> score, classes = Discriminator(10, 64)(torch.zeros(5, 10))
        >>> score.shape, classes.shape
        (torch.Size([5]), torch.Size([5, 10]))
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(classes, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1 + classes))

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map N × classes to N scores, high for a teacher's, and N × classes logits."""
        judged = self.layers(logits)
        return judged[:, 0], judged[:, 1:]


class Contest(nn.Module):
    """A student and the discriminator that is trained beside it; calls go to the student.

    Args:
        student: Held, not copied.
        discriminator: Forgotten in the end.
    """

    def __init__(self, student: nn.Module, discriminator: Discriminator) -> None:
        super().__init__()
        self.student = student
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Any:
        """Call the student."""
        return self.student(x)

    def judge_loss(self, output: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
        """What the discriminator minimises; nothing of it reaches the student.

        Args:
            output: Of the student, N × classes.
            wanted: Of the teacher.
            target: Class numbers.
        """
        real, real_class = self.discriminator(wanted)
        fake, fake_class = self.discriminator(output.detach())
        return telling_apart(real, fake) + F.cross_entropy(real_class, target) + F.cross_entropy(fake_class, target)

    def student_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What the student minimises; nothing of it reaches the discriminator."""
        fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        score, classes = functional_call(self.discriminator, fixed, (output,))
        return passing_for_real(score) + F.cross_entropy(classes, target)


def telling_apart(real: Tensor, fake: Tensor) -> Tensor:
    r"""Cross entropy of the discriminator: mean of -log σ(real) plus mean of -log (1 - σ(fake)).

    Goodfellow et al. 2014, "Generative adversarial nets", section 3, equation 1.

    Args:
        real: Scores of the teacher's outputs.
        fake: Scores of the student's.

    Example:
        >>> import torch
        >>> round(telling_apart(torch.zeros(2), torch.zeros(3)).item(), 4)
        1.3863
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def passing_for_real(fake: Tensor) -> Tensor:
    r"""Mean of -log σ(fake): low where the discriminator takes the student's outputs for the teacher's.

    The form that still has a gradient where the student is found out (Goodfellow et al. 2014, section 3).

    Args:
        fake: Scores of the student's outputs.

    Example:
        >>> import torch
        >>> round(passing_for_real(torch.zeros(3)).item(), 4)
        0.6931
    """
    return F.softplus(-fake).mean()
