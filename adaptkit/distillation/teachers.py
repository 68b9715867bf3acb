"""Teachers: asked for their outputs, one or several."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.errors import ModelError
from adaptkit.loading.models import load_model
from adaptkit.metrics.task import device_of, first_output
from adaptkit.specs import ModelSpec
from adaptkit.technique import Context


class Teachers(nn.Module):
    """Several teachers of one student; a call gives the outputs of each, teachers × N × classes.

    Args:
        members: Held, not copied.

    Example:
        >>> Teachers([nn.Linear(3, 2), nn.Linear(3, 2)])(torch.zeros(5, 3)).shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Ask each.

        Raises:
            ModelError: Their outputs have other shapes.
        """
        outputs = [first_output(member(x)) for member in self.members]
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1:
            found = ", ".join(map(str, sorted(shapes)))
            raise ModelError(f"the teachers' outputs have shapes {found}; all must have the same classes")
        return torch.stack(outputs)


def find_teacher(name: str, spec: ModelSpec | None, student: nn.Module, context: Context) -> nn.Module:
    """Give the teacher of a step, on the student's device.

    Args:
        name: Of the step, for messages.
        spec: The teacher that the step names; the context's where None.
        student: Not to be the teacher itself.
        context: Of the step.

    Raises:
        ModelError: There is none, it is the student, or the named one cannot be built.
    """
    teacher = context.teacher if spec is None else load_model(spec)
    if teacher is None:
        raise ModelError(f"{name} has no teacher: give Context(teacher=...), or name one in the step")
    if teacher is student:
        raise ModelError(f"{name}: teacher and student are the same object; give a copy as the teacher")
    return teacher.to(device_of(student))


def answers(teacher: nn.Module, x: Tensor) -> Tensor:
    """Give the teacher's main output, through which nothing is learnt."""
    with torch.no_grad():
        return first_output(teacher(x))


def require_same_classes(output: Tensor, wanted: Tensor) -> None:
    """Say when a student's output cannot be compared with a teacher's.

    Raises:
        ModelError: They have other shapes.
    """
    if output.shape != wanted.shape:
        raise ModelError(
            f"the student's output has shape {tuple(output.shape)}, the teacher's {tuple(wanted.shape)}; "
            "both must have the same classes"
        )


def mixed_logits(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    r"""Logits whose softmax at temperature T is the weighted mean of the teachers' softmaxes at T.

    T log Σ_k w_k softmax(t_k / T): means are of probabilities, not of logits, so that a teacher's scale is no say.

    Args:
        logits: t, teachers × N × classes.
        weights: w, one a teacher, or teachers × N; of sum 1 over the teachers.
        temperature: T, above 0.

    Example:
        >>> two = torch.tensor([[[0.0, 0.0]], [[9.0, 9.0]]])
        >>> mixed_logits(two, torch.tensor([0.5, 0.5]), temperature=2.0).softmax(1)
        tensor([[0.5000, 0.5000]])
    """
    shares = weights.log().reshape(len(weights), -1, 1)
    return temperature * ((logits / temperature).log_softmax(2) + shares).logsumexp(0)


def confidence_weights(logits: Tensor, target: Tensor) -> Tensor:
    r"""Weigh each teacher, sample by sample, by how right it is: w_k = (1 - exp(CE_k) / Σ_j exp(CE_j)) / (K - 1).

    Zhang, Chen and Wang 2022, "Confidence-aware multi-teacher knowledge distillation", section 2: a teacher that is
    wrong about a sample has little say about it.

    Args:
        logits: Of K teachers, K × N × classes; K of at least 2.
        target: Class numbers.

    Returns:
        K × N, of sum 1 over the teachers.

    Example:
        >>> right, undecided = [[9.0, 0.0]], [[0.0, 0.0]]
        >>> confidence_weights(torch.tensor([right, undecided]), torch.tensor([0]))
        tensor([[0.6666],
                [0.3334]])
    """
    losses = torch.stack([F.cross_entropy(each, target, reduction="none") for each in logits])
    return (1 - losses.softmax(0)) / (len(logits) - 1)
