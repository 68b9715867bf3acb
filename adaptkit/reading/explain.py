"""What pydantic found wrong with a section of a recipe, in words that help: one message for one mistake."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from adaptkit.reading.problem import KeyPath, closest, either, hint, shown

_EXPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "string_type": lambda _: "text",
    "tuple_type": lambda _: "a list",
    "list_type": lambda _: "a list",
    "set_type": lambda _: "a list",
    "frozen_set_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "none_required": lambda _: "null",
    "literal_error": lambda given: str(given["expected"]),
    "greater_than": lambda given: f"more than {_plain(given['gt'])}",
    "greater_than_equal": lambda given: f"at least {_plain(given['ge'])}",
    "less_than": lambda given: f"less than {_plain(given['lt'])}",
    "less_than_equal": lambda given: f"at most {_plain(given['le'])}",
    "string_pattern_mismatch": lambda given: f"text like {given['pattern']}",
    "string_too_short": lambda given: f"at least {given['min_length']} characters",
    "string_too_long": lambda given: f"at most {given['max_length']} characters",
    "too_short": lambda given: f"a list of {given['min_length']} or more",
    "too_long": lambda given: f"a list of {given['max_length']} or fewer",
}
_OTHER_KIND = {kind for kind in _EXPECTED if kind.endswith("_type")} | {"literal_error", "none_required"}


@dataclass(frozen=True)
class Mistake:
    """One mistake: where, what pydantic calls it, and what to tell the user."""

    path: KeyPath
    kind: str
    message: str


@dataclass(frozen=True)
class _Found:
    """An error of pydantic with its path in the data; `member` is the alternative of a union it belongs to."""

    path: KeyPath
    kind: str
    value: Any
    given: dict[str, Any]
    text: str
    union: KeyPath | None
    member: str


def check(model: type[BaseModel], data: dict[str, Any]) -> tuple[BaseModel | None, list[Mistake]]:
    """Validate plain values as YAML has them: text is no number, a number is no text, a list is a tuple.

    Returns:
        The section, or None and every mistake found.
    """
    try:
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        mistakes = _without_echoes(_mistakes(error, model, data))
        return None, mistakes + _hidden_mistakes(model, data, mistakes)


def _mistakes(error: ValidationError, model: type[BaseModel], data: Any) -> list[Mistake]:
    plain: list[_Found] = []
    unions: dict[KeyPath, dict[str, list[_Found]]] = defaultdict(lambda: defaultdict(list))
    for details in error.errors(include_url=False):
        found = _locate(details, data)
        if found.union is None:
            plain.append(found)
        else:
            unions[found.union][found.member].append(found)
    mistakes = [_mistake(found, model) for found in plain]
    for path, members in unions.items():
        mistakes += _union_mistakes(path, list(members.values()), model)
    return mistakes


def _without_echoes(mistakes: list[Mistake]) -> list[Mistake]:
    """Drop "is missing" where an unknown key beside it is a misspelling of that very key."""
    unknown = [m.path for m in mistakes if m.kind == "extra_forbidden"]

    def is_echo(mistake: Mistake) -> bool:
        beside = [str(path[-1]) for path in unknown if path[:-1] == mistake.path[:-1]]
        return mistake.kind == "missing" and any(closest(word, [str(mistake.path[-1])]) for word in beside)

    return [mistake for mistake in mistakes if not is_echo(mistake)]


def _locate(details: Any, data: Any) -> _Found:
    path: list[str | int] = []
    union: KeyPath | None = None
    member = ""
    value = data
    tokens: tuple[str | int, ...] = details["loc"]
    for token in tokens:
        if _holds(value, token):
            value = value[token]
            path.append(token)
        elif details["type"] == "missing" and token is tokens[-1]:
            path.append(token)
        elif union is None:
            # pydantic puts the alternative it tried into the path; the data has no such key.
            union, member = tuple(path), str(token)
    return _Found(tuple(path), details["type"], value, details.get("ctx", {}), details["msg"], union, member)


def _holds(container: Any, token: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(token, int) and token < len(container)
    return isinstance(container, dict) and token in container


def _union_mistakes(path: KeyPath, members: list[list[_Found]], model: type[BaseModel]) -> list[Mistake]:
    meant = [member for member in members if not any(f.path == path and f.kind in _OTHER_KIND for f in member)]
    if meant:
        return [_mistake(found, model) for found in min(meant, key=len)]
    roots = [found for member in members for found in member if found.path == path]
    wanted = either([word for found in roots for word in _alternatives(found, model)])
    return [Mistake(path, "union", f"expected {wanted}, got {shown(roots[0].value)}{_literal_hint(roots)}")]


def _mistake(found: _Found, model: type[BaseModel]) -> Mistake:
    return Mistake(found.path, found.kind, _message(found, model))


def _message(found: _Found, model: type[BaseModel]) -> str:
    if found.kind == "extra_forbidden":
        keys = [key for section in models_at(model, found.path[:-1]) for key in section.model_fields]
        return f"unknown key {found.path[-1]!r}{hint(str(found.path[-1]), keys)}"
    if found.kind == "missing":
        return "is required, but missing" + _described(model, found.path)
    if found.kind == "value_error":
        return str(found.given["error"])
    if found.kind not in _EXPECTED:
        return f"{found.text[0].lower()}{found.text[1:]}, got {shown(found.value)}"
    return f"expected {_wanted(found, model)}, got {shown(found.value)}{_literal_hint([found])}{_remedy(found)}"


def _wanted(found: _Found, model: type[BaseModel]) -> str:
    words = _EXPECTED[found.kind](found.given) if found.kind in _EXPECTED else found.text
    if found.kind == "model_type":
        named = [m for m in models_at(model, found.path) if m.__name__ == found.given.get("class_name")]
        words += "".join(f" with {', '.join(section.model_fields)}" for section in named)
    return words


def _alternatives(found: _Found, model: type[BaseModel]) -> list[str]:
    return _words(found.given["expected"]) if found.kind == "literal_error" else [_wanted(found, model)]


def _described(model: type[BaseModel], path: KeyPath) -> str:
    for section in models_at(model, path[:-1]):
        field = section.model_fields.get(str(path[-1]))
        if field is not None and field.description:
            return f": {field.description}"
    return ""


def _literal_hint(found: list[_Found]) -> str:
    words = [word.strip("'") for f in found if f.kind == "literal_error" for word in _words(f.given["expected"])]
    likely = closest(found[0].value, words) if isinstance(found[0].value, str) else None
    return f"; did you mean {likely!r}?" if likely else ""


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _remedy(found: _Found) -> str:
    value = found.value
    if found.kind == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return f"; write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if found.kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return "; leave out the quotes"
    if found.kind == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if found.kind in ("tuple_type", "list_type") and not isinstance(value, dict | None):
        return f"; write [{shown(value)}]"
    return ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _hidden_mistakes(model: type[BaseModel], data: dict[str, Any], known: list[Mistake]) -> list[Mistake]:
    """Find what pydantic does not look for while a key is wrong: rules about several keys of a section.

    The wrong keys are taken out and the rest is looked at again; a rule that names a key taken out says nothing new.
    """
    rest = json.loads(json.dumps(data))
    for mistake in sorted(known, key=lambda m: len(m.path), reverse=True):
        _remove(rest, mistake.path)
    try:
        model.model_validate_json(json.dumps(rest), strict=True)
    except ValidationError as error:
        taken = {str(part) for mistake in known for part in mistake.path[-1:]}
        found = [m for m in _mistakes(error, model, rest) if m.kind == "value_error" and m not in known]
        return [m for m in found if not any(name in m.message for name in _near(taken, model))]
    return []


def _near(taken: set[str], model: type[BaseModel]) -> set[str]:
    """Add to the keys taken out the ones they were perhaps meant to be."""
    keys = {key for section in models_at(model, None) for key in section.model_fields}
    return taken | {likely for name in taken if (likely := closest(name, keys))}


def _remove(data: Any, path: KeyPath) -> None:
    for position, token in enumerate(path):
        if not isinstance(data, dict) or token not in data:
            return
        if isinstance(data[token], list) or position == len(path) - 1:
            del data[token]
            return
        data = data[token]


def models_at(model: type[BaseModel], path: KeyPath | None) -> list[type[BaseModel]]:
    """List the sections that may stand at a key path, or all below and including the model where it is None."""
    found: list[type[BaseModel]] = [model]
    if path is None:
        below = [inner for field in model.model_fields.values() for inner in nested_models(field.annotation)]
        return found + [section for inner in below for section in models_at(inner, None)]
    for token in path:
        fields = [section.model_fields.get(str(token)) for section in found]
        if isinstance(token, str):
            found = [inner for field in fields if field is not None for inner in nested_models(field.annotation)]
    return found


def nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in an annotation, such as Normalization in `Literal["none"] | Normalization`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from nested_models(inner)
