"""The JSON schema of a recipe, for editors; made from the classes, so that it cannot differ from them."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from adaptkit import techniques
from adaptkit.recipe import Recipe
from adaptkit.technique import Technique

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Give the JSON schema (draft 2020-12) that every recipe satisfies once its variables are put in.

    Example:
        >>> recipe_schema()["required"]
        ['version', 'name', 'model', 'data', 'steps']
    """
    table = techniques.TECHNIQUES
    models: list[type[BaseModel]] = [Recipe, *table.values()]
    references, schema = models_json_schema([(model, "validation") for model in models])
    definitions = schema["$defs"]
    # A step is written as a mapping of its name to its settings; the class says only what the settings are.
    definitions.pop(Technique.__name__, None)
    recipe = definitions.pop(references[(Recipe, "validation")]["$ref"].rpartition("/")[2])
    recipe["properties"]["steps"]["items"] = {
        "anyOf": [
            form
            for name, technique in table.items()
            for form in _forms(name, technique, references[(technique, "validation")])
        ]
    }
    return {"$schema": _DRAFT, **recipe, "title": "adaptkit recipe", "$defs": definitions}


def _forms(name: str, technique: type[Technique], reference: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the ways to write a step: with settings, or, where every setting has a default, by the name alone."""
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
