"""Plain values, as JSON and YAML have them, changed at random."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

Holder = dict[str, Any] | list[Any]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-308, 1e308, float("nan"),
    float("inf"), float("-inf"), "", " ", "x", "0", "nan", "true", "a\nb", "\0", "\x1b[31m", "ünïcödé", "\u202e",
    "\ud800", "𝔘" * 70, "../../../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/mem", ".", "..", "~", "C:\\x",
    "a/../b", "model.onnx", "${HOME}", "${NOPE}", "${", "$${", "${A:-${B}}", "re:(", "re:.*", "re:(a+)+$", "*", "[",
    "x" * 5000, [], {}, [[]], [{}], {"": ""}, {"x": None}, [None] * 50, [0, 0], [-1], [1e308, 1e308],
)  # fmt: skip
"""What stands in the place of a right value."""
_DEEP = (5, 60)


def mutate(rng: random.Random, tree: Any) -> Any:
    """Change a copy of a tree in one to four places."""
    tree = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        holder, key = rng.choice(list(_places(tree)))
        rng.choice(_CHANGES)(rng, tree, holder, key)
    return tree[0] if tree else None


def nested(depth: int, mapping: bool) -> Any:
    """Give lists in lists, or mappings in mappings."""
    value: Any = 0
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


def _places(holder: Any) -> list[tuple[Holder, Any]]:
    """List everything that stands somewhere, as a holder and a key; without recursion, since trees get deep."""
    found: list[tuple[Holder, Any]] = []
    waiting = [holder]
    while waiting and len(found) < 5000:
        inner = waiting.pop()
        keys: list[Any] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        found += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys if isinstance(inner[key], dict | list)]
    return found or [([0], 0)]


def _replace(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(rng.choice(ODD))


def _retype(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    value = holder[key]
    holder[key] = rng.choice((str(value)[:200], [value], {"a": value}, {str(key): value}, [value, value], bool(value)))


def _scale(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000, holder[key] / 3))
    else:
        _replace(rng, tree, holder, key)


def _edit(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    value = holder[key]
    if not isinstance(value, str) or not value:
        _replace(rng, tree, holder, key)
        return
    place = rng.randrange(len(value))
    holder[key] = (
        value[:place] + rng.choice(("", "x", "/", "..", "\t", "é", "\0", "0")) + value[place + rng.randrange(2) :]
    )


def _drop(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    del holder[key]


def _rename(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    if not isinstance(holder, dict):
        holder.insert(rng.randrange(len(holder) + 1), holder[key])
        return
    name = rng.choice((key + "s", key[:-1], key.upper(), "", "ключ", "a.b", "name", "x" * 300, "__class__", "\ud800"))
    holder[name] = holder.pop(key)


def _swap(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    other, name = rng.choice(_places(tree))
    other[name], holder[key] = copy.deepcopy(holder[key]), copy.deepcopy(other[name])


def _nest(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    holder[key] = nested(rng.choice(_DEEP), rng.random() < 0.5)


def _repeat(rng: random.Random, tree: Holder, holder: Any, key: Any) -> None:
    if isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice((2, 3, 20))
    else:
        _replace(rng, tree, holder, key)


_CHANGES: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    _replace, _replace, _replace, _retype, _scale, _edit, _drop, _rename, _swap, _nest, _repeat,
)  # fmt: skip
