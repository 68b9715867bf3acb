"""Where a network can be left early: found on the captured graph, timed on ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from adaptkit.conditional.exit_network import tapped
from adaptkit.errors import ModelError
from adaptkit.export.cut import separators
from adaptkit.export.files import write_model
from adaptkit.export.names import producers
from adaptkit.export.onnx import to_onnx
from adaptkit.metrics.task import first_output
from adaptkit.modes import evaluating
from adaptkit.profiling.layer_times import layer_times

_DEPTH = 0.02
"""What share of the time a level of depth is worth in the choice of a point."""
_INNER = "model"
"""Where `_Taps` holds the model."""


@dataclass(frozen=True)
class Point:
    """A module whose output everything later is made of.

    Args:
        path: Of the module.
        shape: Of its output, without the batch.
        share: Of the network's time that is over by then; from its layers with weights.
    """

    path: str
    shape: tuple[int, ...]
    share: float


def exit_points(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[Point]:
    """List the modules after which a network can be cut in two: a single value in between, layers on both sides.

    Args:
        model: Any that the exporter captures; residual and branching ones have their points between blocks.
        example_inputs: Inputs of one call, batch first.

    Returns:
        In the order they run; those that share an output are named by the last of them, which is the outermost.

    Raises:
        ModelError: The model cannot be captured.

    Example:
        >>> model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).eval()
        >>> [point.path for point in exit_points(model, (torch.zeros(2, 256),))]
        ['0', '1']
    """
    if len(example_inputs) != 1:
        raise ModelError(f"an exit is for a model of one input; this one takes {len(example_inputs)}")
    calls = _calls(model, example_inputs)
    wanted = _candidates(calls, len(example_inputs[0]))
    proto = to_onnx(_Taps(model, tuple(wanted)), example_inputs)
    names = [value.name for value in proto.graph.output]
    on_the_way = set(separators(proto.graph, names[0]))
    makers = producers(proto.graph)
    cut = [path for path, name in zip(wanted, names[1:], strict=True) if _behind_identity(name, makers) & on_the_way]
    del proto.graph.output[1:]
    shares = _shares(proto, [path for path, _ in calls])
    return [Point(path, tuple(wanted[path].shape[1:]), shares[path]) for path in cut if 0 < shares[path] < 1]


def spread(points: list[Point], count: int) -> list[Point]:
    """Choose points at even distances of time, early ones first: the i-th near (i + 1) / (count + 2) of it.

    Between points that are about as near the outermost module is taken: the end of a block, not of a layer in it.

    Example:
        >>> [p.path for p in spread([Point(str(i), (1,), i / 10) for i in range(1, 10)], 2)]
        ['2', '5']
    """
    left, chosen = list(points), []
    for number in range(min(count, len(points))):
        target = (number + 1) / (count + 2)
        chosen.append(min(left, key=lambda point: abs(point.share - target) + _DEPTH * point.path.count(".")))
        left = [point for point in left if point.share > chosen[-1].share]
        if not left:
            break
    return chosen


def chosen_points(
    model: nn.Module, example_inputs: tuple[Tensor, ...], wanted: int | tuple[str, ...], first: bool = False
) -> list[Point]:
    """Choose points by their number, or find those that are named.

    Args:
        model: As in `exit_points`.
        example_inputs: As in `exit_points`.
        wanted: How many at most, at even distances of time; or the modules.
        first: Whether the end of the first layer comes on top of a number.

    Returns:
        In the order they run.

    Raises:
        ModelError: The model cannot be captured, or cannot be left at all, or not behind a module that is named.
    """
    points = exit_points(model, example_inputs)
    if isinstance(wanted, int):
        chosen = spread(points, wanted)
        if first and chosen:
            earliest = [point for point in points if point.share == points[0].share][-1]
            chosen = [earliest, *(point for point in chosen if point.share > earliest.share)]
    else:
        by_path = {point.path: point for point in points}
        if unknown := [path for path in wanted if path not in by_path]:
            raise ModelError(
                f"the model cannot be left behind {', '.join(unknown)}; it can behind {', '.join(by_path)}"
            )
        chosen = [point for point in points if point.path in wanted]
    if not chosen:
        raise ModelError(f"{type(model).__name__} cannot be left early: nothing of it comes after a single value")
    return chosen


class _Taps(nn.Module):
    """Give what modules put out behind the model's own answer."""

    def __init__(self, model: nn.Module, paths: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.paths = model, paths

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with tapped(self.model, self.paths) as on:
            final = first_output(self.model(x))
        return final, *(on[path] for path in self.paths)


def _calls(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[str, Any]]:
    """List the calls of modules, in the order they end, with what they return."""
    calls: list[tuple[str, Any]] = []
    handles = [
        module.register_forward_hook(lambda _, __, output, path=path: calls.append((path, output)))
        for path, module in model.named_modules()
        if path
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _candidates(calls: list[tuple[str, Any]], batch: int) -> dict[str, Tensor]:
    """Keep modules that run once and give numbers for each sample; of those that give the same tensor the last."""
    times = Counter(path for path, _ in calls)
    by_tensor: dict[int, tuple[str, Tensor]] = {}
    for path, output in calls:
        if times[path] == 1 and _is_per_sample(output, batch):
            by_tensor.pop(id(output), None)
            by_tensor[id(output)] = path, output
    return dict(by_tensor.values())


def _is_per_sample(output: Any, batch: int) -> bool:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return False
    return output.dim() in (2, 3, 4) and len(output) == batch


def _behind_identity(name: str, makers: Any) -> set[str]:
    """Name a value and, where it is another's copy, the other."""
    found = {name}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
        found.add(name)
    return found


def _shares(proto: onnx.ModelProto, order: list[str]) -> dict[str, float]:
    """Say which share of the time of its layers a network has spent when a module ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_model(proto, path)
        times = layer_times(path)
    total = sum(times.values())
    if not total:
        raise ModelError("the model has no layer with weights that could be skipped")
    spent, shares = 0.0, {}
    for name in order:
        spent += times.pop(f"{_INNER}.{name}", 0.0)
        shares[name] = spent / total
    return shares
