"""The part of expr-lang that manifests use, and the language of `depends`: read, and evaluated.

Evaluation follows expr-lang for booleans, numbers, text, lists, times and durations. It is what lets a manifest's
conditions be checked and carried out without Argo.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

_MOST_CHARACTERS = 8192
_MOST_DEPTH = 60
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>'[^'\\]*'|\"[^\"\\]*\")|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]]))"
)
_DEPENDS_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z0-9][-\w]*(?:\.[A-Za-z]+)?)|(?P<sign>&&|\|\||[!()]))")
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_CONSTANTS = {"true": True, "false": False, "nil": None}


class ExpressionError(ValueError):
    """An expression that cannot be read or evaluated."""


@dataclass(frozen=True)
class Node:
    """A part of an expression.

    Attributes:
        kind: constant, name, list, call, method, not, minus, choice, or an operator such as "&&".
        value: The constant, or the name of what is read or called.
        parts: What it is made of.
    """

    kind: str
    value: Any = None
    parts: tuple[Node, ...] = ()


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """Read an expression of expr-lang.

    Raises:
        ExpressionError: with the place, counted from 1.
    """
    return _Reader(text, _TOKEN).whole()


def parse_depends(text: str) -> Node:
    """Read what a task depends on: names of tasks, which may have hyphens, and their results.

    Raises:
        ExpressionError: with the place, counted from 1.
    """
    return _Reader(text, _DEPENDS_TOKEN).whole()


def names(node: Node) -> frozenset[str]:
    """The names that an expression reads, with their dots."""
    own = {node.value} if node.kind == "name" else set()
    return frozenset(own).union(*(names(part) for part in node.parts))


def functions(node: Node) -> frozenset[str]:
    """The functions that an expression calls."""
    own = {node.value} if node.kind == "call" else set()
    return frozenset(own).union(*(functions(part) for part in node.parts))


def evaluate(node: Node, values: Mapping[str, Any], now: datetime | None = None) -> Any:
    """Evaluate an expression.

    Args:
        node: The expression.
        values: By dotted name.
        now: What `now()` gives, with a time zone.

    Raises:
        ExpressionError: when a name is unknown, or values do not go together.
    """
    try:
        return _Evaluation(values, now).of(node)
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"cannot be evaluated: {error}") from error


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, token: re.Pattern[str]) -> None:
        if len(text) > _MOST_CHARACTERS:
            raise ExpressionError(f"has {len(text):,} characters, more than {_MOST_CHARACTERS:,}")
        self.text, self.token, self.at, self.depth = text, token, 0, 0
        self.tokens = list(self._split())

    def _split(self) -> Iterator[tuple[str, str, int]]:
        at = 0
        while self.text[at:].strip():
            match = self.token.match(self.text, at)
            if match is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise ExpressionError(f"has {self.text[at]!r} at character {at + 1}, which cannot stand there")
            kind = str(match.lastgroup)
            word = match[kind]
            sign = _WORDS.get(word, word) if kind == "name" and self.token is _TOKEN else word
            yield ("sign" if sign != word or word == "in" else kind, sign, match.start(kind))
            at = match.end()

    def whole(self) -> Node:
        node = self.choice()
        if self.at < len(self.tokens):
            self.fail()
        return node

    def fail(self) -> NoReturn:
        if self.at >= len(self.tokens):
            raise ExpressionError("ends too early")
        _, word, place = self.tokens[self.at]
        raise ExpressionError(f"has {word!r} at character {place + 1}, which cannot stand there")

    def take(self, *signs: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "sign" and self.tokens[self.at][1] in signs:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def expect(self, sign: str) -> None:
        if self.take(sign) is None:
            self.fail()

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise ExpressionError(f"is nested more than {_MOST_DEPTH} deep")
        node = self.level(0)
        if self.take("?"):
            yes = self.choice()
            self.expect(":")
            node = Node("choice", None, (node, yes, self.choice()))
        self.depth -= 1
        return node

    def level(self, number: int) -> Node:
        if number == len(_LEVELS):
            return self.unary()
        node = self.level(number + 1)
        chain = 0
        while sign := self.take(*_LEVELS[number]):
            right = self.level(number + 1)
            if sign == node.kind and sign in ("&&", "||"):  # long chains of conditions stay flat
                node = Node(sign, None, (*node.parts, right))
                continue
            node = Node(sign, None, (node, right))
            chain += 1
            if chain > _MOST_DEPTH:
                raise ExpressionError(f"is nested more than {_MOST_DEPTH} deep")
        return node

    def unary(self) -> Node:
        signs = []
        while sign := self.take("!", "-"):
            signs.append("not" if sign == "!" else "minus")
        node = self.postfix()
        for kind in reversed(signs):
            node = Node(kind, None, (node,))
        return node

    def postfix(self) -> Node:
        node = self.primary()
        while self.take("."):
            kind, word, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
            if kind != "name":
                self.fail()
            self.at += 1
            if self.take("("):
                node = Node("method", word, (node, *self.items(")")))
            elif node.kind == "name":
                node = Node("name", f"{node.value}.{word}")
            else:
                self.fail()
        return node

    def primary(self) -> Node:
        if self.take("("):
            node = self.choice()
            self.expect(")")
            return node
        if self.take("["):
            return Node("list", None, self.items("]"))
        kind, word, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind not in ("number", "text", "name"):
            self.fail()
        self.at += 1
        if kind == "number":
            return Node("constant", float(word) if "." in word else int(word))
        if kind == "text":
            return Node("constant", word[1:-1])
        if word in _CONSTANTS and self.token is _TOKEN:
            return Node("constant", _CONSTANTS[word])
        if self.token is _TOKEN and self.take("("):
            return Node("call", word, self.items(")"))
        return Node("name", word)

    def items(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        if self.take(end):
            return ()
        while True:
            found.append(self.choice())
            if self.take(end):
                return tuple(found)
            self.expect(",")


@dataclass(frozen=True)
class _Evaluation:
    values: Mapping[str, Any]
    now: datetime | None

    def of(self, node: Node) -> Any:
        kind, parts = node.kind, node.parts
        if kind == "constant":
            return node.value
        if kind == "name":
            if node.value not in self.values:
                raise ExpressionError(f"reads {node.value}, which is not known")
            return self.values[node.value]
        if kind in ("&&", "||"):
            decides = kind == "||"  # the rest is not looked at
            return decides if any(_truth(self.of(part)) is decides for part in parts) else not decides
        if kind == "choice":
            return self.of(parts[1] if _truth(self.of(parts[0])) else parts[2])
        given = [self.of(part) for part in parts]
        if kind == "list":
            return given
        if kind == "not":
            return not _truth(given[0])
        if kind == "minus":
            return -given[0]
        if kind == "call":
            return self.call(node.value, given)
        return _METHODS[node.value](*given) if kind == "method" else _OPERATORS[kind](*given)

    def call(self, name: str, given: list[Any]) -> Any:
        if name == "now":
            if self.now is None:
                raise ExpressionError("reads the clock, and there is none")
            return self.now
        if name not in FUNCTIONS:
            raise ExpressionError(f"calls {name}, which is not known")
        return FUNCTIONS[name](*given)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{value!r} is no condition")
    return value


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "asInt": int,
    "asFloat": float,
    "int": int,
    "float": float,
    "string": str,
    "date": _date,
    "timezone": ZoneInfo,
    "now": datetime.now,
}
"""Functions that expressions may call; `now` gives what `evaluate` was told."""

_METHODS: Mapping[str, Callable[..., Any]] = {
    "In": lambda time, zone: time.astimezone(zone),
    "Weekday": lambda time: f"{time:%A}",
    "String": str,
    "Hour": lambda time: time.hour,
    "Minute": lambda time: time.minute,
    "Unix": lambda time: int(time.timestamp()),
    "Seconds": lambda span: span / timedelta(seconds=1),
    "Minutes": lambda span: span / timedelta(minutes=1),
    "Hours": lambda span: span / timedelta(hours=1),
}
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": lambda a, b: a % b,
}
