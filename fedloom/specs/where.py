"""Eligibility as an expression: CEL over the fleet's columns, type-checked before anything runs.

The language is the Common Expression Language (https://cel.dev): no loops that do not end, no access to anything but
the values it is given. A column of integers is an int, of numbers a double; the two are not mixed without a conversion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedloom.specs.fields import Scalar

if TYPE_CHECKING:
    from fedloom.specs.fleet import Fleet

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNKNOWN = re.compile(r"undeclared reference to '([^']+)'")
_MIXED = re.compile(r"\((?:int, double|double, int)\)")


class WhereError(Exception):
    """An expression that is no CEL, or does not fit the fleet's columns.

    Attributes:
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Where:
    """A compiled expression.

    Attributes:
        columns: The columns of the fleet that it names.
    """

    columns: tuple[str, ...]
    _program: Any

    def refusals(self, fleet: Fleet) -> Iterator[str]:
        """Why each client of the fleet does not meet the expression, in their order; empty for those that do.

        An unknown value makes a client ineligible where the outcome depends on it: `a > 1 || b` needs no b when a is 2.
        """
        seen: dict[tuple[Scalar | None, ...], str] = {}
        rows = zip(*(fleet.attributes[name] for name in self.columns), strict=True) if self.columns else iter(())
        for row in rows if self.columns else (() for _ in fleet.clients):
            if row not in seen:
                seen[row] = self._refusal(row)
            yield seen[row]

    def _refusal(self, row: tuple[Scalar | None, ...]) -> str:
        values = {name: value for name, value in zip(self.columns, row, strict=True) if value is not None}
        try:
            outcome = self._program.eval(data=values).value()
        except RuntimeError as error:  # text that is no UTF-8 does not even get in
            outcome = error
        if outcome is True:
            return ""
        if outcome is False:
            return "the expression is false (where)"
        unknown = [name for name in self.columns if name not in values]
        if unknown:
            return f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} unknown (where)"
        return f"the expression has no value: {_one_line(outcome)} (where)"


def compile_where(text: str, fleet: Fleet) -> Where:
    """Compile an expression and check it against the types of the fleet's columns.

    Raises:
        WhereError: when it is no CEL, names what is no column, mixes types, or is neither true nor false.
    """
    from cel_expr_python import cel

    kinds = {"bool": cel.Type.BOOL, "int": cel.Type.INT, "float": cel.Type.DOUBLE, "str": cel.Type.STRING}
    types = {name: kinds.get(_kind(values), cel.Type.DYN) for name, values in fleet.attributes.items()}
    try:
        program = cel.NewEnv(variables=types).compile(text)
    except RuntimeError as error:
        raise _explained(str(error), types) from None
    if program.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise WhereError(f"the expression is of the type {program.return_type().name().lower()}, and must be a bool")
    named = set(_IDENTIFIER.findall(text))
    return Where(tuple(name for name in fleet.attributes if name in named), program)


def check_syntax(text: str) -> None:
    """Check that an expression is CEL; where there is no fleet, nothing is known of its columns.

    Raises:
        WhereError: when it is not.
    """
    from cel_expr_python import cel

    try:
        cel.NewEnv().compile(text, disable_check=True)
    except RuntimeError as error:
        raise _explained(str(error), {}) from None


def _kind(values: tuple[Scalar | None, ...]) -> str:
    """The type of a column's known values; a fleet's columns have one type each."""
    return next((type(value).__name__ for value in values if value is not None), "")


def _explained(text: str, types: dict[str, Any]) -> WhereError:
    """All that the checker found, each with its place in the expression."""
    found = _AT.findall(text)
    if not found:
        return WhereError(_one_line(text))
    shown, hints = [], []
    for line, column, message in found:
        message = message.removesuffix(" [INVALID_ARGUMENT]").removesuffix(" (in container '')")
        shown.append(f"line {line}, column {column} of the expression: {message}")
        hints.append(_hint(message, types))
    return WhereError("; ".join(shown), "; ".join(dict.fromkeys(hint for hint in hints if hint)) or None)


def _hint(message: str, types: dict[str, Any]) -> str | None:
    from fedloom.specs.explain import closest

    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        best = closest(unknown[1], list(types))
        return f"did you mean '{best}'?" if best else f"the fleet's columns: {', '.join(types)}"
    if _MIXED.search(message):
        return "write 3.0 for a column of numbers, 3 for one of integers, or convert by double()"
    return None


def _one_line(outcome: object) -> str:
    return " ".join(str(outcome).split())[:200]
