"""The settings of a technique in words: key, type, default, description."""

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_PLAIN: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    type(None): "null",
    dict: "mapping",
    Any: "anything",
}


@dataclass(frozen=True)
class Setting:
    """One setting; the key of a setting inside another has dots."""

    key: str
    text: str


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """List the settings of a technique in their order, those of a section after the section itself."""
    for name, field in model.model_fields.items():
        key = prefix + name
        sections = [inner for inner in _members(field.annotation) if _is_section(inner)]
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else f"default {_default(default)}"
        described = f" {field.description}" if field.description else ""
        yield Setting(key, f"{type_text(field.annotation)}; {shown}.{described}")
        for section in sections:
            yield from settings_of(section, f"{key}.")


def type_text(annotation: Any) -> str:
    """Write a type as a recipe's reader thinks of it.

    Example:
        >>> type_text(tuple[str, ...]), type_text(Literal["l1", "taylor"] | None)
        ('list of text', "'l1' | 'taylor' | null")
    """
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(args[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in args)
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(arg) for arg in args)
    if origin in (tuple, list, frozenset):
        return "list of " + ", ".join(type_text(arg) for arg in args if arg is not ...)
    if origin is dict or _is_section(annotation):
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "as below"
    return json.dumps(value, ensure_ascii=False).replace('"', "'")
