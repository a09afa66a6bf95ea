"""Who may take part: the criteria, the expression, the blacklist, and the reason for everybody who may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.criteria import Criterion
from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import SelectionRecipe

Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]


class Reasons:
    """Why clients of a fleet may not take part; most may, and cost nothing."""

    def __init__(self, clients: int) -> None:
        self._found: dict[int, list[tuple[str, str]]] = {}
        self._clients = clients

    def add(self, row: int, cause: str, reason: str) -> None:
        """Note a reason; the cause is a word or two that reasons of one sort share."""
        self._found.setdefault(row, []).append((cause, reason))

    def add_all(self, rows: Iterable[int], cause: str, reason: str) -> None:
        """Note one reason for many clients."""
        for row in rows:
            self.add(int(row), cause, reason)

    @property
    def eligible(self) -> Mask:
        """Clients without a reason, shape [clients]."""
        mask: Mask = np.ones(self._clients, dtype=bool)
        mask[list(self._found)] = False
        return mask

    def text(self, row: int) -> str:
        """All reasons of a client; empty for the eligible."""
        return "; ".join(reason for _, reason in self._found.get(row, ()))

    def summary(self) -> str:
        """The commonest causes, each with the number of clients."""
        causes = Counter(cause for reasons in self._found.values() for cause in dict.fromkeys(c for c, _ in reasons))
        return ", ".join(f"{name}: {count}" for name, count in causes.most_common(5)) or "the fleet is too small"


def ineligibility(fleet: Fleet, wanted: SelectionRecipe) -> list[str]:
    """Why each client of the fleet may not take part, whatever has happened before; empty for the eligible."""
    reasons = fixed_reasons(fleet, wanted)
    return [reasons.text(row) for row in range(len(fleet.clients))]


def fixed_reasons(fleet: Fleet, wanted: SelectionRecipe) -> Reasons:
    """The reasons that follow from the roster and the specs alone."""
    reasons = Reasons(len(fleet.clients))
    for criterion in wanted.criteria:
        column = fleet.attributes[criterion.column]
        cause = criterion.path.removeprefix("eligibility_criteria.")
        for row in _failing(criterion, column):
            reasons.add(int(row), cause, _reason(criterion, column[row]))
    if wanted.where is not None:
        from fedloom.specs.where import compile_where

        for row, refusal in enumerate(compile_where(wanted.where, fleet).refusals(fleet)):
            if refusal:
                reasons.add(row, "where", refusal)
    if wanted.blocked:
        for client, why in wanted.blocked:
            if client in fleet.rows:
                reasons.add(fleet.rows[client], "blacklist", f"blacklisted: {why}" if why else "blacklisted")
    return reasons


def numbers(fleet: Fleet, column: str) -> NDArray[np.float64]:
    """A column of numbers, shape [clients], NaN where a value is unknown."""
    return np.array(fleet.attributes[column], dtype=np.float64)  # None becomes NaN


def _failing(criterion: Criterion, column: tuple[Any, ...]) -> Iterable[int]:
    """Rows of the clients that do not pass."""
    if criterion.test in ("at_least", "at_most") and not isinstance(criterion.value, str | tuple):
        values = _as_numbers(column)
        if values is not None:
            passing = values >= criterion.value if criterion.test == "at_least" else values <= criterion.value
            return np.flatnonzero(~passing)
    known: dict[tuple[type, Any], bool] = {}
    failing = []
    for row, value in enumerate(column):
        key = (type(value), value)  # True == 1, but they are different values
        if key not in known:
            known[key] = criterion.accepts(value)
        if not known[key]:
            failing.append(row)
    return failing


def _as_numbers(column: tuple[Any, ...]) -> NDArray[np.float64] | None:
    """The column as numbers, NaN where unknown; None for one of text, also of digits: "5" is no number."""
    text = any(isinstance(value, str) for value in column)
    return None if text else np.array(column, dtype=np.float64)


def _reason(criterion: Criterion, value: Any) -> str:
    name = criterion.path.removeprefix("eligibility_criteria.")
    if value is None:
        return f"{criterion.column} is unknown ({name})"
    words = {"at_least": "is below", "at_most": "is above", "equals": "is not", "one_of": "is none of"}
    wanted = list(criterion.value) if isinstance(criterion.value, tuple) else criterion.value
    return f"{criterion.column} {value} {words[criterion.test]} {wanted} ({name})"
