"""What of a recipe does not suit its data: classes on one side, numbers to predict on the other."""

from __future__ import annotations

from collections.abc import Iterator

from adaptkit.recipe import Recipe
from adaptkit.study.base import Study


def problems(recipe: Recipe, numbers: bool) -> Iterator[str]:
    """Say what of a recipe is of another task than its data.

    Args:
        recipe: What to do.
        numbers: Whether the targets of its data are real numbers, and not classes.
    """
    if not numbers:
        if recipe.gates.max_r2_drop is not None:
            yield "gates.max_r2_drop: the targets are classes: use max_accuracy_drop"
        return
    if recipe.gates.max_accuracy_drop is not None:
        yield "gates.max_accuracy_drop: the targets are real numbers, not classes: use max_r2_drop"
    for index, step in enumerate(recipe.steps):
        if step.of_classes:
            yield f"steps.{index}.{step.name}: it compares scores of classes, and the targets are real numbers"
    for index, entry in enumerate(recipe.conditional):
        yield f"conditional.{index}.{entry.name}: it decides by classes, and the targets are real numbers"
    for index, asked in enumerate(recipe.metrics):
        if isinstance(asked, Study) and asked.of_classes:
            yield f"metrics.{index}: {asked.name} is of classes, and the targets are real numbers"
