"""The JSON schema of a recipe, for editors; made from the classes, so that it cannot differ from them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from adaptkit import conditionals, studies, techniques
from adaptkit.conditional.base import Conditional
from adaptkit.metrics.registry import METRICS
from adaptkit.recipe import Recipe
from adaptkit.study.base import Study
from adaptkit.technique import Technique

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Give the JSON schema (draft 2020-12) that every recipe satisfies once its variables are put in.

    Example:
        >>> recipe_schema()["required"]
        ['version', 'name', 'model', 'data', 'steps']
    """
    tables: dict[str, Mapping[str, type[BaseModel]]] = {
        "steps": techniques.TECHNIQUES,
        "conditional": conditionals.CONDITIONALS,
        "metrics": studies.STUDIES,
    }
    models: list[type[BaseModel]] = [Recipe, *(kind for table in tables.values() for kind in table.values())]
    references, schema = models_json_schema([(model, "validation") for model in models])
    definitions = schema["$defs"]
    # An entry is written as a mapping of its name to its settings; the class says only what the settings are.
    for base in (Technique, Conditional, Study):
        definitions.pop(base.__name__, None)
    recipe = definitions.pop(references[(Recipe, "validation")]["$ref"].rpartition("/")[2])
    for key, table in tables.items():
        forms = [form for name, kind in table.items() for form in _forms(name, kind, references[(kind, "validation")])]
        recipe["properties"][key]["items"] = {"anyOf": forms}
    recipe["properties"]["metrics"]["items"]["anyOf"].append({"enum": [*METRICS]})
    return {"$schema": _DRAFT, **recipe, "title": "adaptkit recipe", "$defs": definitions}


def _forms(name: str, technique: type[BaseModel], reference: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the ways to write an entry: with settings, or, where every setting has a default, by the name alone."""
    description = inspect.cleandoc(technique.__doc__ or "")
    settings: dict[str, Any] = reference
    forms: list[dict[str, Any]] = []
    if not any(field.is_required() for field in technique.model_fields.values()):
        settings = {"anyOf": [reference, {"type": "null"}]}
        forms = [{"const": name, "description": description}]
    mapping = {
        "type": "object",
        "description": description,
        "properties": {name: settings},
        "required": [name],
        "additionalProperties": False,
    }
    return [mapping, *forms]
