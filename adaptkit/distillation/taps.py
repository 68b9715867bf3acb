"""Where two networks can be compared inside: the layers at which a student looks at its teacher."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.errors import ModelError
from adaptkit.modes import evaluating

_CONVOLUTIONS = {4: nn.Conv2d, 5: nn.Conv3d}
_POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the one of the teacher that it is to resemble, with the shapes they return."""

    student: str
    teacher: str
    student_shape: tuple[int, ...]
    teacher_shape: tuple[int, ...]

    def __str__(self) -> str:
        """Name the layer, or both where they are called differently."""
        return self.student if self.student == self.teacher else f"{self.student} with {self.teacher}"


class Taught(nn.Module):
    """A student and the regressors that are learnt beside it; calls go to the student.

    `hint_weight`, from 1 to 0, is how much the hints still count: a buffer, so that a killed fit knows it.

    Args:
        student: Held, not copied.
        pairs: One regressor each.
        seed: Source of the regressors' first weights.
    """

    hint_weight: Tensor

    def __init__(self, student: nn.Module, pairs: Sequence[Pair], seed: int) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("hint_weight", torch.ones(()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.regressors = nn.ModuleList(regressor(pair) for pair in pairs)

    def forward(self, x: Tensor) -> Any:
        """Call the student."""
        return self.student(x)


def unknown_layers(model: nn.Module, names: Collection[str]) -> list[str]:
    """Say of each name that the model has no layer of it.

    Example:
        >>> unknown_layers(nn.Sequential(nn.ReLU()), ["0", "relu"])
        ["Sequential has no layer 'relu'"]
    """
    known = {name for name, _ in model.named_modules()}
    return [f"{type(model).__name__} has no layer {name!r}" for name in names if name not in known]


def dry_run(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What each module returns, in the order in which they finish; those that return no single tensor are out.

    Args:
        model: Run once, in evaluation mode; left as it was.
        inputs: Of one call.
    """
    outputs: dict[str, Tensor] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.pop(name, None)  # a module that runs again finishes later
            outputs[name] = output

    names = [name for name, _ in model.named_modules() if name]
    with evaluating(model), torch.no_grad(), _hooked(model, names, note):
        model(*inputs)
    return outputs


def same_blocks(student: nn.Module, ours: Mapping[str, Tensor], theirs: Collection[str]) -> dict[str, str]:
    """Pair the blocks of a student that was cut out of its teacher.

    A block is a module made of modules, with an image or a sequence as its output. Where the blocks after it are gone
    (an nn.Identity returns the very tensor it got), it is to return what the last of those returned in the teacher.

    Args:
        student: The network.
        ours: Its `dry_run`.
        theirs: Names of the teacher's modules that return a tensor.
    """
    blocks = {id(ours[name]) for name in ours if any(True for _ in student.get_submodule(name).children())}
    last: dict[int, str] = {}
    for name, output in ours.items():
        if id(output) in blocks and name in theirs and prod(_resolution(output)) > 1:
            last[id(output)] = name
    return {name: name for name in last.values()}


def last_at_each_resolution(outputs: Mapping[str, Tensor]) -> dict[tuple[int, ...], str]:
    """Name the last module at each image size, the ends of the stages; sizes of one value are left out.

    Args:
        outputs: N × C × … of images, N × tokens × C of sequences, in the order of running.

    Example:
        >>> stem, stage, head = torch.zeros(1, 8, 32, 32), torch.zeros(1, 16, 32, 32), torch.zeros(1, 16, 1, 1)
        >>> last_at_each_resolution({"stem": stem, "stage": stage, "head": head})
        {(32, 32): 'stage'}
    """
    return {_resolution(output): name for name, output in outputs.items() if prod(_resolution(output)) > 1}


def _resolution(output: Tensor) -> tuple[int, ...]:
    return tuple(output.shape[1:2] if output.dim() == 3 else output.shape[2:])


def find_pairs(
    student: nn.Module, teacher: nn.Module, inputs: tuple[Tensor, ...], layers: Mapping[str, str] | None
) -> list[Pair]:
    """Pair layers by a dry run of both networks.

    Args:
        student: Left as it was.
        teacher: Left as it was.
        inputs: Of one call.
        layers: Name in the student to name in the teacher. Where None, the blocks of the same name; where there are
            none, the ends of the stages of the same resolution.

    Raises:
        ModelError: A named layer is not there, returns no tensor, or cannot be compared; or none was found.
    """
    ours, theirs = dry_run(student, inputs), dry_run(teacher, inputs)
    if layers is None:
        ends, wanted = last_at_each_resolution(ours), last_at_each_resolution(theirs)
        layers = same_blocks(student, ours, theirs.keys())
        layers = layers or {ends[size]: wanted[size] for size in ends if size in wanted}
    if not layers:
        raise ModelError(
            "student and teacher have no two layers of the same resolution: name those to compare in `layers`"
        )
    pairs = []
    for mine, other in layers.items():
        for name, outputs, role in ((mine, ours, "student"), (other, theirs, "teacher")):
            if name not in outputs:
                raise ModelError(f"the {role} has no layer {name!r} that runs and returns one tensor")
        pair = Pair(mine, other, tuple(ours[mine].shape), tuple(theirs[other].shape))
        pairs.append(_comparable(pair, tuple(inputs[0].shape)))
    return pairs


def _comparable(pair: Pair, image: tuple[int, ...]) -> Pair:
    a, b = pair.student_shape, pair.teacher_shape
    # Regressors and averages of images take the second axis for the channels.
    last = a != b and any(channels_come_last(shape, image) for shape in (a, b))
    if len(a) != len(b) or last or (len(a) not in _POOLS and a[:-1] != b[:-1]):
        raise ModelError(
            f"layer {pair.student!r} of the student returns {a}, layer {pair.teacher!r} of the teacher {b}: "
            "they cannot be compared"
        )
    return pair


def channels_come_last(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether the proportions of an output say that it is N × H × W × C, as in Swin, and not N × C × H × W.

    Args:
        shape: Of the output.
        image: Of the input, N × C × H × W.

    Example:
        >>> channels_come_last((1, 56, 56, 96), (1, 3, 224, 224)), channels_come_last((1, 96, 56, 56), (1, 3, 224, 224))
        (True, False)
    """
    if len(shape) != len(image) or len(shape) not in _POOLS:
        return False
    return _is_scaled(shape[1:-1], image[2:]) and not _is_scaled(shape[2:], image[2:])


def _is_scaled(places: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether one factor gives all sides of the image, up to one place, as strides round."""
    return all(abs(count * image[0] - places[0] * side) <= image[0] for count, side in zip(places, image, strict=True))


def require_places(pairs: Sequence[Pair], image: tuple[int, ...]) -> None:
    """Refuse layers of which it is not known where the places are that a sample's attention is on.

    Args:
        pairs: From `find_pairs`.
        image: Shape of the input, the batch first.

    Raises:
        ModelError: A layer returns one value a channel, its channels last, or something else than the batch first.
    """
    for pair in pairs:
        for name, shape in ((pair.student, pair.student_shape), (pair.teacher, pair.teacher_shape)):
            if len(shape) < 3:
                raise ModelError(
                    f"layer {name!r} returns {shape}: attention is compared where a layer returns an image or a "
                    "sequence"
                )
            if channels_come_last(shape, image):
                raise ModelError(
                    f"layer {name!r} returns {shape}, channels last: attention is compared where they come second; "
                    "name in `layers` one that does so, such as the permutation at the end of Swin"
                )
            if shape[0] != image[0]:
                raise ModelError(
                    f"layer {name!r} returns {shape} for a batch of {image[0]}: attention is compared where the batch "
                    "comes first"
                )


def regressor(pair: Pair) -> nn.Module:
    """Make the regressor from the student's channels to the teacher's: 1 × 1, or nothing where they agree.

    Example:
        >>> regressor(Pair("a", "b", (1, 8, 4, 4), (1, 16, 4, 4)))
        Conv2d(8, 16, kernel_size=(1, 1), stride=(1, 1))
    """
    rank = len(pair.student_shape)
    axis = 1 if rank in _POOLS else -1
    ours, theirs = pair.student_shape[axis], pair.teacher_shape[axis]
    if ours == theirs:
        return nn.Identity()
    return nn.Linear(ours, theirs) if rank not in _POOLS else _CONVOLUTIONS[rank](ours, theirs, 1)


def to_same_resolution(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Average the larger of two images down to the size of the smaller, side by side."""
    if a.shape[2:] == b.shape[2:] or a.dim() not in _POOLS:
        return a, b
    size = tuple(min(m, n) for m, n in zip(a.shape[2:], b.shape[2:], strict=True))
    pool = _POOLS[a.dim()]
    return pool(a, size), pool(b, size)


@contextmanager
def tapped(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Give a table that holds, after every call, what the named modules returned."""
    values: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        values[name] = output.clone()  # the next layer may work in place

    with _hooked(model, names, keep):
        yield values


@contextmanager
def _hooked(model: nn.Module, names: list[str], react: Any) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda module, inputs, output: react(name, output)

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
