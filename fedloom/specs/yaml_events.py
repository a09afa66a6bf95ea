"""From the events of a YAML parser to plain data with positions, in one pass and without recursion."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.trails import Position, Trail, dotted

MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_EXPANDED_CHARS = 4 << 20
MAX_DIGITS = 400


_TAG = "tag:yaml.org,2002:"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_START = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


@dataclass
class _Size:
    """What a finished node weighs; an alias weighs as much as its anchor."""

    nodes: int
    chars: int
    height: int


@dataclass
class _Frame:
    """A collection that is still open."""

    container: dict[str, Any] | list[Any]
    trail: Trail
    anchor: str | None
    nodes_before: int
    chars_before: int
    key: str | None = None
    wants_key: bool = True
    is_key: bool = False
    height: int = 0
    seen: dict[str, Position] = field(default_factory=dict)


_UNSET: Any = object()


class TreeBuilder:
    """Builds plain data out of parser events."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.root: Any = None
        self.positions: dict[Trail, Position] = {}
        self.problems: list[Problem] = []
        self.documents = 0
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, _Size] | None] = {}
        self._nodes = 0
        self._chars = 0

    def feed(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._fatal(event, "has several YAML documents", "put each document into a file of its own")

    def _scalar(self, event: Any) -> None:
        value = event.value
        plain = event.tag is None and event.implicit[0]
        if not value.isascii() and not _encodable(value):
            self._problem(event, "text holds half of a surrogate pair, which is no character")
            value = ""
        if self._expects_key():
            merge = (value == "<<" and plain) or event.tag == _TAG + "merge"
            key = self._resolve(event, value) if plain or event.tag else value
            self._key(event, "<<" if merge else key, merge)
        else:
            resolved = self._resolve(event, value) if plain or event.tag else value
            self._value(event, resolved, _Size(1, len(value), 0))

    def _open(self, event: Any) -> None:
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if is_map else "seq")):
            self._bad_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._fatal(event, f"is nested too deep: more than {MAX_DEPTH} levels")
        is_key = self._expects_key()
        if is_key:
            self._problem(event, "a key must be text, this one is a collection")
        elif self._stack:
            self.positions.setdefault(self._trail(), _at(event))
        else:
            self.positions[()] = _at(event)
        frame = _Frame(
            {} if is_map else [],
            self._trail() if not is_key else ("?",),
            event.anchor,
            self._nodes,
            self._chars,
            wants_key=is_map,
            is_key=is_key,
        )
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(frame)
        self._count(event, 1, 0)

    def _close(self) -> None:
        frame = self._stack.pop()
        size = _Size(self._nodes - frame.nodes_before, self._chars - frame.chars_before, frame.height + 1)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.container, size)
        if frame.is_key:
            parent = self._stack[-1]
            parent.key, parent.wants_key = None, False
        else:
            self._attach(frame.container, size.height)

    def _alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor, _UNSET)
        if found is _UNSET:
            self._fatal(event, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        if found is None:
            self._fatal(event, f"the alias *{event.anchor} refers to itself")
        value, size = found
        if self._expects_key():
            self._count(event, 1, len(value) if isinstance(value, str) else 0)
            self._key(event, value, merge=False)
            return
        if len(self._stack) + size.height > MAX_DEPTH:
            self._fatal(event, f"is nested too deep: more than {MAX_DEPTH} levels")
        self._value(event, value, size)

    def _key(self, event: Any, key: Any, merge: bool) -> None:
        frame = self._stack[-1]
        frame.wants_key, frame.key = False, None
        if merge:
            self._problem(event, "merge keys (<<) are not supported", "write the merged keys out")
        elif not isinstance(key, str):
            hint = f'put it in quotes: "{event.value}"' if isinstance(event, yaml.ScalarEvent) else None
            self._problem(event, f"a key must be text, this one is {_kind(key)}", hint)
        elif key in frame.seen:
            line, column = frame.seen[key]
            self._problem(
                event,
                f"the key '{key}' stands here twice, first at {line}:{column}",
                "remove one of the two",
                (*frame.trail, key),
            )
            frame.key = key
        else:
            frame.key = key
            frame.seen[key] = _at(event)
            self.positions[(*frame.trail, key)] = _at(event)
        anchor = getattr(event, "anchor", None)
        if anchor is not None and isinstance(event, yaml.ScalarEvent):
            self._anchors[anchor] = (key, _Size(1, len(event.value), 0))
        if isinstance(event, yaml.ScalarEvent):
            self._count(event, 1, len(event.value))

    def _value(self, event: Any, value: Any, size: _Size) -> None:
        self._count(event, size.nodes, size.chars)
        if not self._stack:
            self.positions[()] = _at(event)
        elif isinstance(self._stack[-1].container, list):
            self.positions[self._trail()] = _at(event)
        if event.anchor is not None and isinstance(event, yaml.ScalarEvent):
            self._anchors[event.anchor] = (value, size)
        self._attach(value, size.height)

    def _attach(self, value: Any, height: int) -> None:
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, height)
        if isinstance(frame.container, list):
            frame.container.append(value)
            return
        if frame.key is not None:
            frame.container[frame.key] = value
        frame.key, frame.wants_key = None, True

    def _resolve(self, event: Any, value: str) -> Any:
        tag = event.tag
        if tag in ("!", _TAG + "str") or (not event.implicit[0] and tag is None):
            return value
        if tag is not None and (not tag.startswith(_TAG) or tag[len(_TAG) :] not in _BY_TAG):
            if tag != _TAG + "merge":
                self._bad_tag(event)
            return value
        resolved = self._core(event, value)
        if tag is None:
            return resolved
        wanted = _BY_TAG[tag[len(_TAG) :]]
        if wanted is float and type(resolved) is int:
            return float(resolved)
        if type(resolved) is not wanted:
            self._problem(event, f"'{value[:40]}' is not of the type that its tag names")
        return resolved

    def _core(self, event: Any, value: str) -> Any:
        if value in _NULL:
            return None
        if value[0] not in _NUMBER_START:
            return _BOOL.get(value, value)
        try:
            if _INT.fullmatch(value):
                if len(value) > MAX_DIGITS:
                    self._problem(event, f"a number of {len(value)} digits is too long")
                    return 0
                return int(value, {"0o": 8, "0x": 16}.get(value[:2], 10))
            if _FLOAT.fullmatch(value):
                return float(value.replace(".i", "i").replace(".I", "I").replace(".n", "n").replace(".N", "N"))
        except (ValueError, OverflowError):
            self._problem(event, "this number is out of range")
            return 0
        return value

    def _bad_tag(self, event: Any) -> None:
        tag = event.tag.replace(_TAG, "!!")
        self._problem(event, f"the tag {tag[:80]} is not allowed", "write plain values, without tags")

    def _expects_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].container, dict) and self._stack[-1].wants_key

    def _trail(self) -> Trail:
        if not self._stack:
            return ()
        frame = self._stack[-1]
        step = len(frame.container) if isinstance(frame.container, list) else frame.key
        return (*frame.trail, "?" if step is None else step)

    def _count(self, event: Any, nodes: int, chars: int) -> None:
        self._nodes += nodes
        self._chars += chars
        if self._nodes > MAX_NODES:
            self._fatal(event, f"holds more than {MAX_NODES:,} values once its aliases are expanded")
        if self._chars > MAX_EXPANDED_CHARS:
            self._fatal(event, f"holds more than {MAX_EXPANDED_CHARS:,} characters once its aliases are expanded")

    def _problem(self, event: Any, message: str, hint: str | None = None, trail: Trail = ()) -> None:
        line, column = _at(event)
        self.problems.append(Problem("error", message, self.shown, line, column, dotted(trail), hint))

    def _fatal(self, event: Any, message: str, hint: str | None = None) -> None:
        self._problem(event, message, hint)
        raise SpecError(self.problems)


_BY_TAG: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}


def _at(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", type(None): "empty"}
    return names.get(type(value), "a collection")
