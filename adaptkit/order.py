"""Which step may follow which: what each technique leaves, and what the others say to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptkit.reading.problem import either
from adaptkit.technique import Form, Technique

if TYPE_CHECKING:
    from torch import nn

Kind = type[Technique]


def forms_of(model: nn.Module) -> frozenset[Form]:
    """Say what a model has become already, as far as it shows.

    Example:
        >>> from torch import nn
        >>> from adaptkit.pruning.masks import mark
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> mark(net, ["0.weight"])
        >>> sorted(forms_of(net))
        ['sparse']
    """
    from adaptkit.pruning.masks import PATTERN, marked
    from adaptkit.quantization.simulate import QuantizedModel

    if isinstance(model, QuantizedModel):
        return frozenset({"quantized", "limited sums"} if model.plan.accumulators else {"quantized"})
    patterned = any(hasattr(module, PATTERN) for module in model.modules())
    forms: dict[Form, bool] = {"sparse": bool(marked(model)), "patterned": patterned}
    return frozenset(form for form, has in forms.items() if has)


def order_problems(steps: Sequence[Kind | None], techniques: Mapping[str, Kind]) -> list[tuple[int, str]]:
    """List the steps that cannot follow the ones before them, each with the reason and what to do.

    Args:
        steps: The techniques in their order; None for one that could not be read.
        techniques: All that there are, from which another one may be recommended.

    Returns:
        (number of the step, message).

    Example:
        >>> class Quantize(Technique):
        ...     name = "quantize"
        ...     leaves = frozenset({"quantized"})
        >>> class Prune(Technique):
        ...     name = "prune"
        ...     refuses = {"quantized": "a quantized model has no float weights to cut"}
        >>> order_problems([Prune, Quantize], {})
        []
        >>> order_problems([Quantize, Prune], {})
        [(1, 'cannot follow quantize (steps.0): a quantized model has no float weights to cut. Put prune before it')]
    """
    made: dict[Form, int] = {}
    problems = []
    for index, step in enumerate(steps):
        if step is None:
            continue
        refused = next((form for form in step.refuses if form in made), None)
        if refused is not None:
            problems.append((index, _message(step, refused, made[refused], steps, techniques.values())))
        for form in step.leaves:
            made.setdefault(form, index)
    return problems


def _message(step: Kind, form: Form, index: int, steps: Sequence[Kind | None], techniques: Iterable[Kind]) -> str:
    earlier = steps[index]
    assert earlier is not None
    swappable = not any(left in earlier.refuses for left in step.leaves)
    advice = [f"put {step.name} before it" if swappable else "keep one of the two"]
    family = step.name.partition(".")[0]
    others = [
        other.name
        for other in techniques
        if other.name.partition(".")[0] == family and not any(left in other.refuses for left in earlier.leaves)
    ]
    if others:
        advice.append(f"use {either(others)}")
    joined = ", or ".join(advice)
    return f"cannot follow {earlier.name} (steps.{index}): {step.refuses[form]}. {joined[0].upper()}{joined[1:]}"
