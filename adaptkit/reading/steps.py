"""The steps of a recipe: a technique's name, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.order import order_problems
from adaptkit.reading.document import Document
from adaptkit.reading.explain import check
from adaptkit.reading.problem import KeyPath, hint, shown
from adaptkit.reading.references import resolve_references
from adaptkit.technique import Technique


def read_steps(document: Document, steps: Any, techniques: Mapping[str, type[Technique]]) -> tuple[Technique, ...]:
    """Turn the `steps` of a recipe into techniques; problems go into the document, and a wrong step is left out."""
    if not isinstance(steps, list):
        document.add(("steps",), f"expected a list, each entry starting with a dash; got {shown(steps)}")
        return ()
    found = [_step(document, step, ("steps", index), techniques) for index, step in enumerate(steps)]
    kinds = [None if step is None else type(step) for step in found]
    for index, message in order_problems(kinds, techniques):
        document.add(("steps", index, *steps[index]) if isinstance(steps[index], dict) else ("steps", index), message)
    return tuple(step for step in found if step is not None)


def _step(document: Document, step: Any, path: KeyPath, techniques: Mapping[str, type[Technique]]) -> Technique | None:
    if isinstance(step, str):
        step = {step: None}
    if not isinstance(step, dict) or not step:
        document.add(path, f"expected a technique and its settings, such as prune.structured: {{}}; got {shown(step)}")
        return None
    name, *others = step
    if name not in techniques:
        document.add((*path, name), f"unknown technique {name!r}{hint(name, techniques)}")
        return None
    if others:
        document.add(path, _too_many_keys(name, others, techniques[name]))
        return None
    settings = {} if step[name] is None else step[name]
    if not isinstance(settings, dict):
        document.add((*path, name), f"expected a mapping of settings, got {shown(settings)}")
        return None
    return _technique(document, techniques[name], settings, (*path, name))


def _too_many_keys(name: str, others: list[str], technique: type[Technique]) -> str:
    if all(other in technique.model_fields for other in others):
        return f"indent {', '.join(others)} below {name}: settings stand two spaces deeper than their technique"
    return f"a step is one technique, found {', '.join([name, *others])}: begin each with a dash"


def _technique(document: Document, kind: type[Technique], settings: dict[str, Any], path: KeyPath) -> Technique | None:
    resolve_references(document, kind, settings, path)
    technique, mistakes = check(kind, settings)
    for mistake in mistakes:
        document.add((*path, *mistake.path), mistake.message)
    return technique if isinstance(technique, kind) else None
