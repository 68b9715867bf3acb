"""YAML to plain values, with the place of every value kept and every problem collected."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from adaptkit.reading.problem import KeyPath, Place, Problem, shown
from adaptkit.reading.variables import expand, hide, reveal

_TAG = "tag:yaml.org,2002:"
_KINDS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value")}
_NUMBERS = {_TAG + kind for kind in ("int", "float", "bool", "null")}
LONGEST = 20_000
"""Characters of a recipe at most: a lock file of the largest shipped one has 3,000, and YAML is read slowly."""
_MOST_BITS = 1024
"""Of a whole number: no float is larger."""
_DEEPEST, _MOST = 40, 20_000
_REASONS = {
    "found character '\\t' that cannot start any token": "a tab; YAML is indented with spaces",
    "mapping values are not allowed here": "a ':' that cannot stand here; check the indentation, or quote the value",
    "could not find expected ':'": "a key without ':'",
    "expected <block end>, but found '-'": "a '-' that cannot stand here; check the indentation",
    "found unexpected end of stream": "a quote that is never closed",
    "but found another document": "a second document; a recipe is one document",
}


class Document:
    """The values of a YAML text, where each was written, and what is wrong with it.

    Args:
        source: What to call the text in messages.
        folder: What relative paths in it are relative to.
        env: The variables for `${NAME}`.

    Attributes:
        data: Mappings, lists, text, numbers, true, false and null; what could not be read is left out.
        places: The place of each value, by key path.
        problems: What was wrong.
    """

    def __init__(self, source: str, folder: Path, env: Mapping[str, str]) -> None:
        self.data: Any = None
        self.places: dict[KeyPath, Place] = {(): Place(source, 1, folder)}
        self.problems: list[Problem] = []
        self.env = env
        self._spoiled: set[KeyPath] = set()

    def place(self, path: KeyPath) -> Place:
        """Return where the value, or the nearest one around it, was written."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def add(self, path: KeyPath, message: str, place: Place | None = None) -> None:
        """Note a problem with the value at `path`, unless that value could not even be read."""
        if path not in self._spoiled:
            self.problems.append(Problem(place or self.place(path), path, message))

    def spoil(self, path: KeyPath, message: str, place: Place | None = None) -> None:
        """Note that the value at `path` cannot be read; nothing more is said about it."""
        self.add(path, message, place)
        self._spoiled.add(path)


def read_document(text: str, source: str, folder: Path, env: Mapping[str, str]) -> Document:
    r"""Read a YAML 1.2 text; problems are in the result, nothing is raised.

    Example:
        >>> document = read_document("a: 1\nb: {c: 1e-3}", "x.yaml", Path("."), {})
        >>> document.data, str(document.place(("b", "c")))
        ({'a': 1, 'b': {'c': 0.001}}, 'x.yaml:2')
    """
    document = Document(source, folder, env)

    def place_of(node: Node) -> Place:
        return Place(source, node.start_mark.line + 1, folder)

    document.data = _Conversion(document, place_of).read(text, ())
    return document


def read_option(document: Document, text: str, place: Place, path: KeyPath) -> Any:
    """Read the YAML value of a `--set` option; its places and problems go into the document."""
    for inner in [known for known in document.places if known[: len(path)] == path]:
        del document.places[inner]
    document.places[path] = place
    return _Conversion(document, lambda _: place).read(text, path)


class _TooLargeError(Exception):
    """The text, or what its anchors make of it, is larger than any recipe."""


class _Composer(Composer):
    """Stops at a depth that no recipe has: YAML in braces takes a time that grows with the square of it."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and what is inside of it."""
        self._depth += 1
        if self._depth > 2 * _DEEPEST:
            raise _TooLargeError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Conversion:
    """Turns YAML nodes into plain values, without tags, and notes the place of each."""

    def __init__(self, document: Document, place_of: Callable[[Node], Place]) -> None:
        self._document = document
        self._place_of = place_of
        self._yaml = YAML(typ="safe", pure=True)
        self._yaml.Composer = _Composer
        self._pieces: list[str] = []
        self._count = 0

    def read(self, text: str, path: KeyPath) -> Any:
        if len(text) > LONGEST:
            self._document.spoil(path, f"too long: more than {LONGEST:,} characters")
            return None
        hidden, self._pieces = hide(text)
        try:
            with warnings.catch_warnings():
                # Naming two anchors alike is legal YAML.
                warnings.simplefilter("ignore", ReusedAnchorWarning)
                node = self._yaml.compose(hidden)
            return None if node is None else self._value(node, path)
        except (RecursionError, _TooLargeError):
            self._document.spoil(path, "nested too deeply or too large; does an anchor contain itself?")
        except YAMLError as error:
            reason = reveal(_reason(error), self._pieces)
            self._document.spoil(path, f"not YAML: {reason}", self._place_in(error, path, hidden))
        return None

    def _place_in(self, error: YAMLError, path: KeyPath, hidden: str) -> Place:
        place = self._document.place(path)
        return place if place.line is None else Place(place.source, _line_of(error, hidden), place.folder)

    def _value(self, node: Node, path: KeyPath) -> Any:
        self._document.places.setdefault(path, self._place_of(node))
        self._count += 1
        if len(path) > _DEEPEST or self._count > _MOST:
            raise _TooLargeError
        tag = str(node.tag)
        if tag not in _KINDS:
            self._document.spoil(path, f"the tag {tag.removeprefix(_TAG)!r} is not allowed in a recipe")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._place_of(key_node)
            if not isinstance(key_node, ScalarNode) or key_node.tag != _TAG + "str":
                self._document.add(path, f"a key must be text, got {_source_of(key_node)}; put it in quotes", place)
                continue
            key = reveal(key_node.value, self._pieces)
            if not _is_unicode(key):
                self._document.add(path, f"the key {key!r} is not valid Unicode", place)
                continue
            if key in values:
                first = self._document.place((*path, key))
                self._document.add((*path, key), f"given twice, first at {first}; keep one", place)
                continue
            self._document.places.setdefault((*path, key), place)
            values[key] = self._value(value_node, (*path, key))
        return values

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        written = reveal(node.value, self._pieces)
        text, messages = expand(written, self._document.env)
        tag = str(node.tag)
        if not node.style and tag == _TAG + "str" and text != written:
            # An unquoted ${SEED} is read as if its value stood there.
            tag = str(self._yaml.resolver.resolve(ScalarNode, text, (True, False)))
        for message in messages:
            self._document.spoil(path, message)
        if messages:
            return written
        if tag not in _NUMBERS:
            return self._unicode(text, path)
        try:
            value = self._yaml.constructor.construct_object(ScalarNode(tag, text))
            if not isinstance(value, int) or value.bit_length() <= _MOST_BITS:
                return value
        except (YAMLError, ValueError):
            pass
        self._document.spoil(path, f"cannot read {shown(text)} as {tag.removeprefix(_TAG)}")
        return text

    def _unicode(self, text: str, path: KeyPath) -> str | None:
        if _is_unicode(text):
            return text
        self._document.spoil(path, f"{text!r} is not valid Unicode")
        return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _source_of(node: Node) -> str:
    return repr(node.value) if isinstance(node, ScalarNode) else "a list or a mapping"


def _line_of(error: YAMLError, text: str) -> int:
    if isinstance(error, ReaderError):
        return text.count("\n", 0, error.position) + 1
    if not isinstance(error, MarkedYAMLError):
        return 1
    # A quote that is never closed is noticed at the end; where it was opened helps more.
    never_closed = error.problem == "found unexpected end of stream"
    mark = error.context_mark if never_closed else error.problem_mark
    return 1 if mark is None else mark.line + 1


def _reason(error: YAMLError) -> str:
    if isinstance(error, ReaderError):
        return f"the character {chr(error.character)!r} cannot stand in YAML"
    if isinstance(error, MarkedYAMLError) and error.problem:
        return _REASONS.get(error.problem, str(error.problem))
    return str(error).splitlines()[0]
