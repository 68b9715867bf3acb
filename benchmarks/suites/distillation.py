"""Losses of distillation: the same numbers as torchdistill's, and the time of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit.distillation.losses import attention_loss, dist_loss, hinton_loss
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.harness.turns import ratio, turns

TEMPERATURE, ALPHA = 4.0, 0.7
ROUNDS, CALLS = {"smoke": 5, "nightly": 60}, 20
CLASSES = {"smoke": 10, "nightly": 1000}
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """The same loss twice, and what it is of.

    Args:
        ours: Of student, teacher and target.
        theirs: The same.
        features: Whether student and teacher are feature maps and not logits.
    """

    ours: Loss
    theirs: Loss
    features: bool = False


def run(place: Place) -> Found:
    """Compare values and gradients, and time forward and backward passes in turns."""
    module = place.peers.module("torchdistill", ".losses.mid_level")
    if module is None:
        return {"losses": {}}
    return {"losses": {name: _measure(place, pair) for name, pair in _pairs(module).items()}}


def _pairs(module: Any) -> dict[str, Pair]:
    ends = dict.fromkeys(("student_module_path", "teacher_module_path"), ".")
    ends |= dict.fromkeys(("student_module_io", "teacher_module_io"), "output")
    hinton = module.KDLoss(**ends, temperature=TEMPERATURE, alpha=1 - ALPHA, beta=ALPHA)
    side = {"path": ".", "io": "output"}
    attention = module.ATLoss(at_pairs={"pair": {"student": side, "teacher": side}}, mode="code")
    dist = module.DISTLoss(**ends, beta=2.0, gamma=1.5, tau=TEMPERATURE)

    def theirs(loss: Any) -> Loss:
        return lambda s, t, y: loss({".": {"output": s}}, {".": {"output": t}}, y)

    return {
        "Hinton": Pair(lambda s, t, y: hinton_loss(s, t, y, TEMPERATURE, ALPHA), theirs(hinton)),
        "attention transfer": Pair(lambda s, t, y: attention_loss(s, t), theirs(attention), features=True),
        "DIST": Pair(lambda s, t, y: dist_loss(s, t, TEMPERATURE, 2.0, 1.5), theirs(dist)),
    }


def _measure(place: Place, pair: Pair) -> Found:
    torch.manual_seed(place.seed)
    classes = CLASSES[place.size]
    shape = (128, 64, 8, 8) if pair.features else (128, classes)
    student, teacher = 3 * torch.randn(shape), 3 * torch.randn(shape)
    target = torch.randint(classes, (128,))

    def step(loss: Loss) -> tuple[Tensor, Tensor]:
        own = student.clone().requires_grad_()
        value = loss(own, teacher, target)
        value.backward()  # type: ignore[no-untyped-call]
        assert own.grad is not None
        return value.detach(), own.grad

    (value, gradient), (their_value, their_gradient) = step(pair.ours), step(pair.theirs)

    def steps(loss: Loss) -> Callable[[], None]:
        def some() -> None:
            for _ in range(CALLS):
                step(loss)

        return some

    ways = {"adaptkit": steps(pair.ours), "torchdistill": steps(pair.theirs)}
    times = turns(ways, ROUNDS[place.size], warm_up=2)
    return {
        "difference": float((value - their_value).abs() / their_value.abs()),
        "gradient_difference": float((gradient - their_gradient).norm() / their_gradient.norm()),
        "step_us": {name: 1e6 * float(np.median(each)) / CALLS for name, each in times.items()},
        "faster": ratio(times, "torchdistill", "adaptkit"),
        "shape": shape,
    }


def table(figures: Found) -> str:
    """One row for each loss."""
    rows = [
        "| loss | of | values differ by | gradients differ by | adaptkit | torchdistill | faster |",
        "|---" * 7 + "|",
    ]
    for name, found in figures["losses"].items():
        times, faster = found["step_us"], found["faster"]
        rows.append(
            f"| {name} | {' × '.join(map(str, found['shape']))} | {found['difference']:.1e} "
            f"| {found['gradient_difference']:.1e} | {times['adaptkit']:.0f} µs | {times['torchdistill']:.0f} µs "
            f"| {faster['median']:.2f} × ({faster['p10']:.2f} to {faster['p90']:.2f}) |"
        )
    return "\n".join([*rows, "", "Relative differences in float32; processor time of one forward and backward pass."])


def verdicts(figures: Found) -> list[Verdict]:
    """Compare the time of a step; a loss that is another number is a loss for nobody to compare."""
    return [Verdict(
        f"{name}: a step (values differ by {found['difference']:.0e})",
        f"{found['step_us']['adaptkit']:.0f} µs", f"{found['step_us']['torchdistill']:.0f} µs", "torchdistill",
        outcome(1.0, found["faster"]["median"], lower_is_better=True),
    ) for name, found in figures["losses"].items()]  # fmt: skip


SUITE = Suite(
    about="Losses of distillation: numerically equal to torchdistill's, time of a step",
    run=run, table=table, verdicts=verdicts, peers=("torchdistill",), minutes=2, needs_data=False,
)  # fmt: skip
